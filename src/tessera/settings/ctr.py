"""Settings of click-through rate: impressions and their histories, training, what is compared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator, model_validator

from tessera.settings.base import Seed, Settings, ascending, did_you_mean
from tessera.settings.clicks.base import ClickModel, CTRModel
from tessera.settings.references import SequenceCodesName, named, no_attribute, unread_of_vectors
from tessera.settings.training import Hardware, LoopSettings, OptimizerSettings

if TYPE_CHECKING:
    from tessera.settings.config import Config


class CTRSplit(Settings):
    """Cuts for everybody: the past is only history, then come training, validation and test."""

    by: Literal["time", "position"] = "time"
    """One moment for all users, or, for logs without times, the same share of each user's own events."""
    past: float = Field(0.0, ge=0, lt=1)
    """Share of the history events before the first training impression: they are history and no sample."""
    valid: float = Field(0.1, gt=0, lt=1)
    """Share of the history events between the cuts of validation and test."""
    test: float = Field(0.1, gt=0, lt=1)
    """Share of the history events after the last cut."""

    @model_validator(mode="after")
    def _something_trains(self) -> CTRSplit:
        if self.past + self.valid + self.test >= 1:
            raise ValueError(f"past, valid and test are {self.past + self.valid + self.test:g} of the log; none trains")
        return self


class SamplesSettings(Settings):
    """What every kind of samples may say."""

    split: CTRSplit = Field(default_factory=CTRSplit)
    """Which impressions train, validate and test."""
    per_user: int | None = Field(None, ge=1)
    """Most rows of the log that become samples, a user and part: the latest; null takes all."""
    category: str = "category"
    """Attribute of the items that is their category; of a list, such as genres, the first entry counts."""
    max_history: int | None = Field(None, ge=1)
    """Most events of a history that models are given: the latest; null gives all."""


class ImpressionSamples(SamplesSettings):
    """The log holds impressions, clicked or not: a rating above 0 is a click, and clicks are the history."""

    source: Literal["impressions"] = "impressions"
    """What the log says of clicks."""


class RatingSamples(SamplesSettings):
    """Every rating is an impression; high ones are clicks."""

    source: Literal["ratings"]
    """What the log says of clicks."""
    threshold: float = 4.0
    """Least rating of a click."""
    history: Literal["all", "positives"] = "all"
    """Whether histories hold everything that was rated, or only what was rated high."""


class PositiveSamples(SamplesSettings):
    """The log holds clicks alone; each gets negatives, never an item that the user had by the end of that part."""

    source: Literal["positives"]
    """What the log says of clicks."""
    negatives: int = Field(1, ge=1)
    """Negatives a click."""
    distribution: Literal["uniform", "popularity", "category"] = "uniform"
    """Where they come from: any item, by training events, or the category of the click (any, once a user has had all of
    that)."""
    seed: int = Field(0, ge=0)
    """Seed of the negatives."""


Samples = Annotated[ImpressionSamples | RatingSamples | PositiveSamples, Field(discriminator="source")]


class CTRTraining(OptimizerSettings, Hardware, LoopSettings):
    """The training loop: binary cross-entropy."""

    epochs: int = Field(1, ge=1)
    """Passes over the samples; IDs are known to overfit from the second one on (Zhang et al., CIKM 2022)."""
    batch: int = Field(256, ge=2)
    """Impressions a step, over all processes."""

    def problems(self, config: Config) -> Iterator[tuple[str, str]]:
        """A process without a row in any step."""
        if self.batch < self.processes:
            yield "batch", f"{self.batch} impressions for {self.processes} processes; expected one each, or more"


class CTREvaluation(Settings):
    """How click-through models are judged."""

    history_bins: list[int] = Field(default_factory=lambda: [50, 200, 1000])
    """Upper ends (inclusive) of the groups by history length; a last group takes the rest."""
    head_share: float = Field(0.2, gt=0, lt=1)
    """Share of the items, by training events, that make the head; the rest is the tail."""
    calibration_bins: int = Field(15, ge=2)
    """Bins of equal width of the predicted probability, for the expected calibration error."""
    resamples: int = Field(1000, ge=100)
    """Bootstrap resamples over users, for confidence intervals and paired tests."""
    level: float = Field(0.05, gt=0, lt=1)
    """One less the confidence of the intervals; significance level after Holm's correction."""
    batch: int = Field(256, ge=1)
    """Impressions scored at once."""
    requests: int = Field(20, ge=0)
    """Requests whose latency is measured, the longest test histories first; 0 measures none."""
    candidates: int = Field(100, ge=1)
    """Candidates of such a request."""
    recall_samples: int = Field(500, ge=0)
    """Test impressions on which retrieval is compared with the attention of `reference`; 0 compares none."""
    seed: Seed = 0
    """Seed of the resampling."""

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also of requests that are not made."""
        yield from super().unread()
        if not self.requests:
            yield "is of requests, and requests: 0 makes none", ("candidates",)

    @field_validator("history_bins")
    @classmethod
    def _ascending(cls, values: list[int]) -> list[int]:
        return ascending(values, [50, 200, 1000])


class ItemContent(Settings):
    """What models that learn from raw content are given of every item."""

    fields: list[str] | None = Field(None, min_length=1)
    """Attributes (and `title`) that are read, in this order; null takes the title and all attributes, but those that no
    item has. The first one stands for a query where the log has none."""
    max_tokens: int = Field(32, ge=1, le=2**16)
    """Most tokens of each."""
    tokens: dict[str, Annotated[int, Field(ge=1, le=2**16)]] = Field(default_factory=dict)
    """Most tokens of some of them, where others than `max_tokens`."""
    vocabulary: int = Field(1000, ge=300)
    """Most tokens of the tokenizer, which is trained on the catalogue."""
    picture: int | None = Field(64, ge=4, le=2**12)
    """Side in pixels to which pictures are brought; null reads none."""
    patch: int = Field(16, ge=2, le=2**12)
    """Side of the patches that they are cut into; it divides `picture`."""

    def problems(self, config: Config) -> Iterator[tuple[str, str]]:
        """Also texts of which it is known that no item has them."""
        yield from super().problems(config)
        listed = [(f"fields.{number}", name) for number, name in enumerate(self.fields or [])]
        for key, name in [*listed, *((f"tokens.{name}", name) for name in self.tokens)]:
            yield from ((key, f"{name!r} {text}") for text in no_attribute(config, name, ["title"]))

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also of patches of no pictures."""
        yield from super().unread()
        if self.picture is None:
            yield "is of pictures, and picture: null reads none", ("patch",)

    @model_validator(mode="after")
    def _cut_evenly(self) -> ItemContent:
        if self.picture is not None and self.picture % self.patch:
            raise ValueError(f"picture {self.picture} is no multiple of patch {self.patch}")
        if self.fields is not None and len(set(self.fields)) < len(self.fields):
            raise ValueError(f"fields {self.fields} name one twice")
        unread = [name for name in self.tokens if name not in (self.fields or [name])]
        if unread:
            raise ValueError(f"tokens: {unread[0]!r} is not read{did_you_mean(unread[0], self.fields or [])}")
        return self


class CTR(Settings):
    """A comparison of click-through models over lifelong histories; `task: ctr` runs it."""

    samples: Samples = Field(default_factory=ImpressionSamples)
    """How the log becomes impressions with labels."""
    semantic_ids: SequenceCodesName | None = None
    """A name under `semantic_ids`, made of tables that no history shaped: codes for the models that read them."""
    content: ItemContent = Field(default_factory=ItemContent)
    """Texts and pictures of items, for the models that read them."""
    models: dict[str, CTRModel] = Field(min_length=1)
    """What is compared, by name."""
    training: CTRTraining = Field(default_factory=CTRTraining)
    """The training loop of every model."""
    evaluation: CTREvaluation = Field(default_factory=CTREvaluation)
    """How they are judged."""
    baseline: str | None = None
    """The model that the others are tested against; null takes the first."""
    reference: str | None = None
    """A model of target attention over whole histories (din), whose heaviest events retrieval ought to find."""

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also of a comparison of retrieval that is not made."""
        yield from super().unread()
        if self.reference is None and self.evaluation.recall_samples:
            yield "compares retrieval with `reference`, which names no model", ("evaluation.recall_samples",)

    def problems(self, config: Config) -> Iterator[tuple[str, str]]:
        """Models that are compared with none, codes that models do not get, cuts that the log does not know."""
        for key, value in (("baseline", self.baseline), ("reference", self.reference)):
            if value is not None and value not in self.models:
                yield key, f"unknown name {value!r}{did_you_mean(value, self.models)}"
        reference = self.models.get(self.reference or "")
        if reference is not None and not reference.attends:
            yield "reference", f"{self.reference!r} has no attention over histories; choose a din"
        elif reference is not None and getattr(reference, "window", None) is not None:
            yield "reference", f"{self.reference!r} sees its window alone; give it `window: null`"
        if reference is not None:
            yield from self._unpaired(reference, config)
        if "content" in self.model_fields_set and not any(model.READS_CONTENT for model in self.models.values()):
            yield "content", "none of the models reads texts and pictures; leave it out"
        if self.semantic_ids is not None and not any(model.read_codes for model in self.models.values()):
            yield "semantic_ids", "none of the models reads codes; leave it out"
        yield from self._unlogged(config)
        yield from self._uncategorised(config)
        codes = config.semantic_ids.get(self.semantic_ids or "")
        for name, model in self.models.items():
            if model.read_codes and codes is None:
                yield f"models.{name}", f"{model.model} reads semantic IDs, but ctr.semantic_ids names none"
            elif model.read_codes and codes is not None:
                problems = unread_of_vectors(codes, model.start == "codebooks", model)
                yield from ((f"models.{name}.{key}", text) for key, text in problems)
            weights, levels = getattr(model, "level_weights", None), getattr(codes, "levels", None)
            if weights is not None and levels is not None and len(weights) != levels:
                yield f"models.{name}.level_weights", f"{weights}, expected {levels} numbers, one a level"
        for table in named(codes, "tables"):
            if config.tables[table].LEARNS:
                yield "semantic_ids", f"table {table!r} learned from histories, whose cuts are not those of ctr.samples"

    def _unpaired(self, reference: ClickModel, config: Config) -> Iterator[tuple[str, str]]:
        """Models that retrieve are compared with the reference of the same seed."""
        if not self.evaluation.recall_samples:
            return
        seeds = set(reference.seeds or config.experiment.seeds)
        for name, model in self.models.items():
            lacking = [seed for seed in model.seeds or config.experiment.seeds if seed not in seeds]
            if model.retrieves and lacking:
                whose = self.reference if reference.seeds is not None else name
                yield (
                    f"models.{whose}.seeds",
                    f"{name!r} has seed {lacking[0]}, and ctr.reference, {self.reference!r}, with which it is compared "
                    f"seed by seed, has {sorted(seeds)}; give both the same",
                )

    def _unlogged(self, config: Config) -> Iterator[tuple[str, str]]:
        """Worlds whose log tells what was not clicked in a part of the time alone."""
        for name in config.experiment.datasets:
            lifelong = getattr(config.datasets[name], "lifelong", None)
            if lifelong is None:
                continue
            if self.samples.source == "positives":
                yield "samples.source", f"the log of {name!r} tells what was not clicked, too; take impressions"
                continue
            if self.samples.split.past < round(1 - lifelong.logged, 9):
                yield (
                    "samples.split.past",
                    f"{self.samples.split.past}, but the log of {name!r} tells what was not clicked in its last "
                    f"{lifelong.logged} alone; expected {1 - lifelong.logged:g} or more",
                )
            if self.samples.split.by == "position":
                yield "samples.split.by", f"the log of {name!r} tells from a moment on what was not clicked; take time"

    def _uncategorised(self, config: Config) -> Iterator[tuple[str, str]]:
        """Categories that are asked for of items of which it is known that none has one."""
        samples = self.samples
        wanted = [f"models.{name}" for name, model in self.models.items() if model.BY_CATEGORY]
        if isinstance(samples, PositiveSamples) and samples.distribution == "category":
            wanted.append("samples.distribution")
        if not (wanted or samples.says("category")):
            return
        needed = f"; {wanted[0]} needs categories" if wanted else ""
        for text in no_attribute(config, samples.category):
            yield "samples.category", f"{samples.category!r} {text}{needed}"

    @property
    def against(self) -> str:
        """The model that the others are tested against."""
        return self.baseline or next(iter(self.models))


class CTRRun(Settings):
    """One training, every default resolved: what the train rule carries in its params."""

    name: str
    seed: int
    model: CTRModel
    training: CTRTraining
    semantic_ids: bool
    """Whether the run is given codes."""
    max_history: int | None = None
    remarks: list[str] = Field(default_factory=list)
    """What every table that shows the run says about it."""

    @property
    def path(self) -> str:
        """Folder of the run below `ctr/runs/` of a dataset."""
        return f"{self.name}/seed-{self.seed}"
