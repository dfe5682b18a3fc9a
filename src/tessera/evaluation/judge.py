"""The judge: every system's test users through the same masks, candidates, ranks, metrics and groups."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from tessera.artifacts.tables import EVALUATION
from tessera.data.dataset import Cases
from tessera.data.padding import padded
from tessera.evaluation import metrics
from tessera.evaluation.cold import KIND, cold_groups
from tessera.evaluation.groups import effective_ranks, history_groups, item_groups, repeated
from tessera.evaluation.histories import Histories, slices
from tessera.evaluation.ranking import ScoreFormError, check_scores, mask_seen, ranks, top
from tessera.settings.evaluation import Evaluation, FullRanking, SampledRanking

SCORES_AT_ONCE = 1 << 25
"""Scores (users x items) in memory at once: 128 MiB of float32."""
MOST_USERS = 512


class Scorer(Protocol):
    """Scores of the whole catalogue after a history.

    To one with an attribute `reads_times` that is true, histories are given with times. One with an attribute
    `unscored` gives this score, its lowest, to items of which it knows nothing: they are ranked, but never recommended.
    What comes from one whose `gives_away` is true is written over; of others a copy is.
    """

    max_history: int | None
    """How much of a history's end is read; None reads all."""

    def __call__(self, histories: Histories) -> Tensor:
        """(batch, items) scores after histories."""


@dataclass(frozen=True)
class Ranked:
    """What ranking gives, one row a case, in the order of the cases."""

    ranks: np.ndarray
    """Infinite where the target is masked: it stands in the history, and nothing that is recommended can hit it."""
    scores: np.ndarray
    candidates: np.ndarray
    recommended: np.ndarray
    """(cases, k) item ids, 0 where fewer than k items were left."""
    cold_ranks: np.ndarray
    """(cases,) ranks of cold targets among the cold items alone; NaN of all others."""
    cold_candidates: np.ndarray
    """(cases,) how many cold items were ranked, the target among them; 0 where it is none."""


def rank_cases(
    scorer: Scorer,
    cases: Cases,
    settings: Evaluation,
    candidates: np.ndarray | None = None,
    recommend: int = 0,
    progress: Callable[[int], None] | None = None,
    cold: np.ndarray | None = None,
    catalogue: int | None = None,
) -> Ranked:
    """Rank the target of every case.

    Args:
        scorer: the recommender.
        cases: users, targets and histories.
        settings: masks, ties and the size of batches, which bounds memory at batch x items scores.
        candidates: (cases, n) item ids ranked with the target, 0 where there is none; None ranks the catalogue. Seen
            items that are not masked come to drawn ones, and to those of a file where the target is a seen item.
        recommend: length of the recommended lists.
        progress: told how many cases were done.
        cold: (items + 1,) items without a training interaction, which are also ranked among themselves; None for none.
        catalogue: how many items have to be scored; None takes as many as are.
    Raises:
        ScoreError: a score is NaN.
        ScoreFormError: see `score`.
    """
    masked = masked_cases(cases, settings)
    unscored = getattr(scorer, "unscored", -torch.inf)
    judge = _Judge(cases, settings, masked, masked & cases.repeats, candidates, recommend, unscored, cold)
    ranking = _unranked(len(cases), recommend)
    # like lengths together: less padding, the same numbers
    order = np.argsort(cases.lengths, kind="stable")
    for begin in range(0, len(cases), settings.batch_users):
        chosen = order[begin : begin + settings.batch_users]
        starts, lengths = cases.offsets[:-1][chosen], cases.lengths[chosen]
        scores = score(scorer, cases.items, starts, lengths, cases.users[chosen], cases.times, catalogue)
        judge.rank(chosen, scores, ranking)
        if progress is not None:
            progress(len(chosen))
    return ranking


def _unranked(count: int, recommend: int) -> Ranked:
    """Room for so many cases."""
    return Ranked(
        np.empty(count), np.empty(count, np.float32), np.empty(count, np.int32), np.zeros((count, recommend), np.int32),
        np.full(count, np.nan), np.zeros(count, np.int32),
    )  # fmt: skip


@dataclass(frozen=True)
class _Judge:
    """What is asked of scores; see `rank_cases`."""

    cases: Cases
    settings: Evaluation
    masked: np.ndarray
    """(cases,) whose own items are out of the ranking."""
    missed: np.ndarray
    """(cases,) whose target is one of these."""
    candidates: np.ndarray | None
    recommend: int
    unscored: float
    """Nothing with this score or a lower one is recommended."""
    cold: np.ndarray | None

    def rank(self, chosen: np.ndarray, scores: Tensor, ranking: Ranked) -> None:
        """Write down how a batch of cases ranks.

        Args:
            chosen: (batch,) the cases.
            scores: (batch, items), which are masked in place.
            ranking: of all cases.
        """
        cases, settings, device = self.cases, self.settings, scores.device
        targets = torch.from_numpy(cases.targets[chosen]).long().to(device)
        seen = padded(cases.items, cases.offsets[:-1][chosen], np.where(self.masked[chosen], cases.lengths[chosen], 0))
        unscored = self.unscored
        if not check_scores(scores, torch.from_numpy(cases.users[chosen])):
            # what is masked is put below everything, an item that a scorer puts there itself is ranked
            lowest = torch.finfo(scores.dtype).min
            scores.clamp_(min=lowest)
            unscored = max(unscored, lowest)
        target_scores = scores.gather(1, targets[:, None] - 1)
        candidates = self._candidates(chosen)
        if candidates is not None:  # before anything is masked: a list that is given is taken as it is
            among, sizes = _among(scores, torch.from_numpy(candidates).long().to(device), target_scores)
        if settings.mask_seen:
            self._mask(chosen, scores, seen, targets)
        if self.recommend:
            ranking.recommended[chosen] = _top(scores, self.recommend, unscored)
        part = scores
        if candidates is not None:
            part = among
            ranking.candidates[chosen] = sizes.cpu().numpy()
        else:
            ranking.candidates[chosen] = scores.shape[1] - _different(seen)
        ranking.ranks[chosen] = self._unless_masked(chosen, ranks(part, target_scores[:, 0], settings.ties))
        if self.cold is not None and (is_cold := self.cold[cases.targets[chosen]]).any():
            own = chosen[is_cold]
            part, left = _among_cold(scores, np.flatnonzero(is_cold), cases, own, self.cold, self.masked)
            place = ranks(part, target_scores[torch.from_numpy(is_cold).to(device), 0], settings.ties)
            ranking.cold_ranks[own], ranking.cold_candidates[own] = self._unless_masked(own, place), left
        ranking.scores[chosen] = target_scores[:, 0].cpu().numpy()

    def _candidates(self, chosen: np.ndarray) -> np.ndarray | None:
        """(chosen, n) the items that targets are ranked with; None for the catalogue."""
        if self.candidates is None:
            return None
        return _with_seen(self.candidates[chosen], self.cases, chosen, self.masked[chosen], self.settings)

    def _mask(self, own: np.ndarray, scores: Tensor, seen: np.ndarray, targets: Tensor) -> None:
        """Seen items below everything; so is a target that may not be hit."""
        mask_seen(scores, torch.from_numpy(seen).to(scores.device), targets)
        missed = torch.from_numpy(self.missed[own]).to(scores.device)
        scores[missed, targets[missed] - 1] = -torch.inf

    def _unless_masked(self, own: np.ndarray, ranked: Tensor) -> np.ndarray:
        """(own,) ranks, infinite where the target is masked."""
        return np.where(self.missed[own], np.inf, ranked.cpu().numpy())


def _among_cold(
    scores: Tensor, rows: np.ndarray, cases: Cases, own: np.ndarray, cold: np.ndarray, masked: np.ndarray
) -> tuple[Tensor, list[int]]:
    """Scores of some rows over the cold items alone, (rows, cold items), and how many of these are not masked.

    Args:
        scores: (batch, items) of a batch of cases.
        rows: which of its rows have a cold target.
        cases: all.
        own: (rows,) the cases that these rows are.
        cold: (items + 1,) bool.
        masked: (cases,) whose own items are out of the ranking.
    """
    columns = torch.from_numpy(np.flatnonzero(cold[1:])).to(scores.device)
    part = scores[torch.from_numpy(rows).to(scores.device)[:, None], columns]
    return part, [len(columns) - _hidden(cases, case, cold) * int(masked[case]) for case in own.tolist()]


def masked_cases(cases: Cases, settings: Evaluation) -> np.ndarray:
    """(cases,) whether the items of the history are out of the ranking, the target too where it is one of them.

    Not where `repeat_targets: unmasked` meets a target of the history: with the other seen items masked and the target
    not, it would stand out.
    """
    if not settings.mask_seen:
        return np.zeros(len(cases), bool)
    return ~cases.repeats if settings.repeat_targets == "unmasked" else np.ones(len(cases), bool)


def _different(histories: np.ndarray) -> np.ndarray:
    """(rows,) how many different items histories (rows, length) have, 0 where there is none."""
    return np.asarray((np.diff(np.sort(histories, axis=1), axis=1, prepend=0) > 0).sum(1))


def _hidden(cases: Cases, case: int, among: np.ndarray) -> int:
    """How many different items of `among` (items + 1,) the history of a case holds, its target left out."""
    history = np.unique(cases.history(case))
    return int((among[history] & (history != cases.targets[case])).sum())


def _with_seen(
    candidates: np.ndarray, cases: Cases, chosen: np.ndarray, masked: np.ndarray, settings: Evaluation
) -> np.ndarray:
    """Candidates (chosen, n), and beside them the seen items that full ranking would rank.

    Negatives are no seen items, so a target that is one would stand out among them. A published file is taken as it is
    for everybody else.
    """
    if settings.candidates.kind == "full" or masked.all():
        return candidates
    wanted = ~masked if settings.candidates.kind == "sampled" else ~masked & cases.repeats[chosen]
    more = [
        np.setdiff1d(cases.history(case), [*row, cases.targets[case]]) if seen else np.zeros(0, np.int32)
        for case, row, seen in zip(chosen, candidates, wanted, strict=True)
    ]
    sizes = np.array([len(part) for part in more], np.int64)
    beside = padded(np.concatenate(more), np.cumsum(sizes) - sizes, sizes)
    return np.concatenate([candidates, beside], axis=1)


def score(
    scorer: Scorer,
    items: np.ndarray,
    starts: np.ndarray,
    lengths: np.ndarray,
    users: np.ndarray,
    times: np.ndarray | None = None,
    catalogue: int | None = None,
) -> Tensor:
    """(users, items) scores after slices of `items`, of which the scorer reads the ends that it can.

    Args:
        scorer: the recommender.
        items: histories, one after the other.
        starts: where each user's begins.
        lengths: of the slices.
        users: ids, 0 is nobody known.
        times: seconds beside `items`; None where no time is known.
        catalogue: how many items have to be scored; None takes as many as are.
    Raises:
        ScoreFormError: the scorer gives no floats of this shape.
    """
    if scorer.max_history is not None:
        kept = np.minimum(lengths, scorer.max_history)
        starts, lengths = starts + lengths - kept, kept
    read = times if reads_times(scorer) else None
    scores = scorer(slices(items, starts, lengths, users, read))
    _check_form(scorer, scores, len(users), catalogue)
    if scores.dtype not in (torch.float32, torch.float64):  # ranks are sums, which half precision rounds
        return scores.float()
    return scores if getattr(scorer, "gives_away", False) else scores.clone()


def _check_form(scorer: Scorer, scores: object, users: int, catalogue: int | None) -> None:
    if isinstance(scores, Tensor) and scores.is_floating_point() and scores.ndim == 2:
        width = scores.shape[1] if catalogue is None else catalogue
        if scores.shape == (users, width):
            return
    shape = f" {tuple(scores.shape)}" if isinstance(scores, (Tensor, np.ndarray)) else ""
    kind = str(scores.dtype) if isinstance(scores, Tensor) else type(scores).__name__
    items = "items" if catalogue is None else f"{catalogue}"
    name = getattr(scorer, "model", scorer).__class__.__name__
    raise ScoreFormError(
        f"{name} gives {kind}{shape} as scores of {users} histories; expected a tensor of floats ({users}, {items}): a "
        "column an item, item 1 in the first, and none for the padding"
    )


def users_at_once(items: int) -> int:
    """How many users are scored together, so that memory is bounded whatever the size of the catalogue."""
    return max(1, min(MOST_USERS, SCORES_AT_ONCE // max(1, items)))


def reads_times(scorer: Scorer) -> bool:
    """Whether a scorer asks for times."""
    return bool(getattr(scorer, "reads_times", False))


def _top(scores: Tensor, k: int, above: float) -> np.ndarray:
    """(users, k) items of the highest scores, 0 where fewer are `above` something."""
    lists = np.zeros((len(scores), k), np.int32)
    values, columns = top(scores, min(k, scores.shape[1]))
    lists[:, : values.shape[1]] = torch.where(values > above, columns + 1, 0).cpu().numpy()
    return lists


def _among(scores: Tensor, candidates: Tensor, target_scores: Tensor) -> tuple[Tensor, Tensor]:
    """Scores of the target and its candidates; an empty place scores below everything."""
    chosen = scores.gather(1, (candidates - 1).clamp(min=0)).masked_fill(candidates == 0, -torch.inf)
    return torch.cat([target_scores, chosen], dim=1), (candidates > 0).sum(1) + 1


def evaluation_table(cases: Cases, ranked: Ranked, popularity: np.ndarray) -> pa.Table:
    """The evaluation artifact: one row a user, sorted by user.

    Args:
        popularity: (items + 1,) training interactions an item.
    """
    order = np.argsort(cases.users, kind="stable")
    lists = ranked.recommended[order]
    ends = np.concatenate([[0], np.cumsum((lists > 0).sum(1))]).astype(np.int32)
    columns = {
        "user": cases.users[order],
        "item": cases.targets[order],
        "rank": ranked.ranks[order],
        "score": ranked.scores[order],
        "candidates": ranked.candidates[order],
        "history_length": cases.lengths[order],
        "popularity": popularity[cases.targets[order]],
        "repeat": cases.repeats[order],
        "cold_rank": pa.array(ranked.cold_ranks[order], from_pandas=True),
        "cold_candidates": ranked.cold_candidates[order],
        "recommended": pa.ListArray.from_arrays(ends, pa.array(lists[lists > 0], pa.int32())),
    }
    return pa.table(columns).select(EVALUATION.names).cast(EVALUATION)


def protocol_name(settings: Evaluation, candidates: np.ndarray | None) -> str:
    """`full`, or `100 sampled`: metrics of the two are never comparable, so the name goes with every number."""
    if isinstance(settings.candidates, FullRanking):
        return "full"
    if isinstance(settings.candidates, SampledRanking):
        return f"{settings.candidates.negatives} sampled"
    width = candidates.shape[1] if candidates is not None else 0
    return f"{width} from file"


def summarize(
    table: pa.Table, settings: Evaluation, popularity: np.ndarray, protocol: str, **description: Any
) -> dict[str, Any]:
    """The averages of an evaluation table: overall, by item group and by history length, with the counts.

    Args:
        table: an evaluation artifact.
        popularity: (items + 1,) training interactions an item.
        protocol: see `protocol_name`.
        description: what else goes into metrics.json (system, recommender, seed, ...).
    """
    items = len(popularity) - 1
    targets = table.column("item").to_numpy()
    repeats = repeated(table)
    rank, counted = effective_ranks(table.column("rank").to_numpy(), popularity[targets], settings, repeats)
    named_values = metrics.per_user(rank, settings)
    values = np.stack(list(named_values.values()))

    def means(members: np.ndarray) -> dict[str, Any]:
        chosen = np.flatnonzero(members & counted)
        averages = values.take(chosen, axis=1).mean(axis=1).tolist() if len(chosen) else []
        return {"users": len(chosen), "metrics": dict(zip(named_values, averages, strict=bool(averages)))}

    overall = means(np.ones(len(rank), bool))
    if len(rank) and "recommended" in table.column_names:
        shown = table if counted.all() else table.filter(pa.array(counted))
        overall["metrics"] |= list_metrics(shown, popularity, settings)
    groups: dict[str, dict[str, Any]] = {
        kind: {name: means(members[targets]) for name, members in named.items()}
        for kind, named in item_groups(popularity, settings).items()
    }
    lengths = table.column("history_length").to_numpy()
    groups["history"] = {name: means(members) for name, members in history_groups(lengths, settings).items()}
    if cold := cold_groups(table, settings):
        groups[KIND] = cold
    counts = {
        "test_users": len(targets),
        "cold_share": float((popularity[targets] == 0).mean()) if len(targets) else 0.0,
        "repeat_share": float(repeats.mean()) if len(targets) else 0.0,
    }
    return {**description, "protocol": protocol, "items": items, **counts, **overall, "groups": groups}


def list_metrics(table: pa.Table, popularity: np.ndarray, settings: Evaluation) -> dict[str, float]:
    """Coverage, Gini and mean popularity of the first K recommendations: K is 10, or the last cut-off without a 10.

    Where nothing is recommended to anybody, coverage alone.
    """
    cutoffs = settings.cutoffs
    k = min(10 if 10 in cutoffs else cutoffs[-1], settings.recommendations)
    column = table.column("recommended").combine_chunks()
    sizes = np.diff(column.offsets.to_numpy())
    lists = padded(column.flatten().to_numpy(), column.offsets.to_numpy()[:-1], sizes)[:, :k]
    items = len(popularity) - 1
    covered = {f"coverage@{k}": metrics.coverage(lists, items)}
    if not lists.any():
        return covered
    return covered | {
        f"gini@{k}": metrics.gini(lists, items),
        f"popularity@{k}": metrics.mean_popularity(lists, popularity),
    }


def counted_cases(cases: Cases, settings: Evaluation) -> Cases:
    """The cases that `repeat_targets` leaves in."""
    if settings.repeat_targets != "drop" or not cases.repeats.any():
        return cases
    return cases.take(np.flatnonzero(~cases.repeats))


def validation_metrics(
    scorer: Scorer, cases: Cases, settings: Evaluation, catalogue: int | None = None
) -> dict[str, float]:
    """NDCG@10 and Hit@10 of the validation cases, full ranking, for early stopping.

    Those that `repeat_targets: drop` leaves out are not ranked.
    """
    started = time.monotonic()
    target_ranks = rank_cases(scorer, counted_cases(cases, settings), settings, catalogue=catalogue).ranks
    return {
        "NDCG@10": float(metrics.ndcg(target_ranks, 10).mean()),
        "Hit@10": float(metrics.hit(target_ranks, 10).mean()),
        "validation_seconds": round(time.monotonic() - started, 3),
    }
