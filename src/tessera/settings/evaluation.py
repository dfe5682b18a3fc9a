"""Settings of the judge: candidates, masks, metrics, groups and significance."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from tessera.settings.base import Seed, Settings, ascending
from tessera.settings.shift import Shift, check_shift_name


class FullRanking(Settings):
    """Rank the target among the whole catalogue."""

    kind: Literal["full"] = "full"


class SampledRanking(Settings):
    """Rank the target among sampled negatives, kept in a file; metrics are named `...@K (n sampled)`."""

    kind: Literal["sampled"] = "sampled"
    negatives: int = Field(100, ge=1)
    """Negatives a user, drawn from the items that the user has not seen. Seen items are treated as under full ranking:
    out of the ranking with `mask_seen`, otherwise all of them are ranked beside the negatives."""
    distribution: Literal["uniform", "popularity"] = "uniform"
    """Where they are drawn from."""
    seed: Seed = 0
    """Seed of the drawing."""


class CandidatesFile(Settings):
    """Rank the target among the negatives of a published file (`user negative negative ...` a line, raw ids)."""

    kind: Literal["file"] = "file"
    path: str
    """The file; relative paths are looked up like data files. Where the target stands in the history and seen items are
    not masked, these are ranked beside the negatives of the file."""


RepeatTargets = Literal["miss", "drop", "unmasked"]

Candidates = Annotated[FullRanking | SampledRanking | CandidatesFile, Field(discriminator="kind")]


class Evaluation(Settings):
    """How every system is judged."""

    candidates: Candidates = Field(default_factory=FullRanking)
    """What the target is ranked among: `{kind: full}`, `{kind: sampled, ...}` or `{kind: file, path: ...}`."""
    test_users: int | None = Field(None, ge=1)
    """Judge a fixed random sample of test users of this size, the same for every system and seed; null takes all."""
    test_users_seed: Seed = 0
    """Seed of its drawing."""
    mask_seen: bool = True
    """Take the items of the user's own history out of the ranking, at the test and in the validation that stops
    training. Set it to false where users come back to items."""
    repeat_targets: RepeatTargets = "miss"
    """Targets that stand in the user's own history: `miss` (masked like all seen items, so that nothing can hit them;
    ranked like others without `mask_seen`), `drop` (these users are left out), or `unmasked` (nothing is masked for
    these users)."""
    ties: Literal["mean", "pessimistic"] = "mean"
    """Rank of a target with equals: in their middle (1 + greater + equal/2), or after all of them."""
    cold_targets: Literal["miss", "drop", "rank"] = "miss"
    """Targets without a training interaction: counted as misses, left out, or ranked as scored."""
    cutoffs: list[int] = Field(default_factory=lambda: [5, 10, 20])
    """K of Hit@K and NDCG@K."""
    mrr_cutoffs: list[int] = Field(default_factory=list)
    """K of MRR@K, which session recommenders are measured by, beside MRR without a cut."""
    head_share: float = Field(0.2, gt=0, lt=1)
    """Share of the items, by train popularity, that make the head; the rest is the tail."""
    history_bins: list[int] = Field(default_factory=lambda: [5, 10, 20, 50])
    """Upper ends (inclusive) of the groups by history length; a last group takes the rest."""
    popularity_bins: int = Field(5, ge=2)
    """Groups of items with equal shares of the training interactions."""
    batch_users: int = Field(256, ge=1)
    """Users scored at once: bounds the memory (users x items scores)."""
    recommendations: int = Field(20, ge=1)
    """Length of the recommendation lists that are kept, for coverage, Gini and the report."""
    shift: dict[str, Shift] = Field(default_factory=dict)
    """Test sets that differ from training, by name, which tables show beside one that does not:
    `{unpopular: {kind: popularity}, late: {kind: temporal}}`. They are made of the users that are judged anyway."""

    @field_validator("cutoffs", "history_bins", "mrr_cutoffs")
    @classmethod
    def _ascending(cls, values: list[int], info: ValidationInfo) -> list[int]:
        if info.field_name == "mrr_cutoffs" and not values:
            return values
        return ascending(values, [5, 10, 20])

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also a seed of no drawing."""
        yield from super().unread()
        if self.test_users is None:
            yield "draws nothing without `test_users`, for all are judged", ("test_users_seed",)

    @property
    def measured(self) -> list[str]:
        """The metrics that each user has."""
        names = [f"{name}@{k}" for k in self.cutoffs for name in ("NDCG", "Hit")]
        return [*names, "MRR", *(f"MRR@{k}" for k in self.mrr_cutoffs)]

    @field_validator("shift")
    @classmethod
    def _names(cls, shifts: dict[str, Shift]) -> dict[str, Shift]:
        for name in shifts:
            check_shift_name(name)
        return shifts


class Significance(Settings):
    """Paired tests over users against the named baseline, Holm-corrected over the table."""

    baseline: str | None = None
    """A system (`popular`, `id`): every run is then compared with it under its own recommender, heuristics under its
    first; or one run, as `system/recommender` (`id/sasrec`); null takes the first trained run of the experiment."""
    method: Literal["randomization", "bootstrap", "t_test"] = "randomization"
    """Paired sign-flip randomisation, paired bootstrap, or the paired t-test; of fewer than ten users always the
    first."""
    resamples: int = Field(10_000, ge=100)
    """Resamples of the first two."""
    level: float = Field(0.05, gt=0, lt=1)
    """Significance level after the Holm correction."""
    seed: Seed = 0
    """Seed of the resampling."""
