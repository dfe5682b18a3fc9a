"""Test sets that differ from training: who is drawn, what is refused, and what their metrics are."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from tessera.artifacts.tables import ArtifactError, write_table
from tessera.data.clock import SECONDS, Clock
from tessera.data.dataset import NO_TIME, TEST, TRAIN, VALID, Dataset
from tessera.evaluation import metrics
from tessera.evaluation.shift import by_popularity, equal_bins, members
from tessera.evaluation.shifted import NATURAL, SHIFTED, Shifts, sentence
from tessera.settings.base import ConfigError
from tessera.settings.config import load
from tessera.settings.evaluation import Evaluation
from tessera.settings.shift import PopularityShift, Shift

USERS, ITEMS = 300, 50
DAY = 86_400


def dataset(
    clock: Clock = SECONDS, timed: bool = True, users: int = USERS, seed: int = 0, first: int = 1_600_000_000
) -> Dataset:
    """Histories whose items follow a power law; the last items are met by test rows alone, and times have ties."""
    rng = np.random.default_rng(seed)
    chances = 1 / np.arange(1, ITEMS + 1) ** 1.2
    items, splits, times = [], [], []
    for _ in range(users):
        length = int(rng.integers(4, 12))
        own = rng.choice(np.arange(1, ITEMS - 3), length, p=chances[: ITEMS - 4] / chances[: ITEMS - 4].sum())
        own[-1] = rng.integers(1, ITEMS + 1)
        items.append(own)
        splits.append([TRAIN] * (length - 2) + [VALID, TEST])
        start = int(rng.integers(0, 60))
        times.append((first // DAY + start + np.arange(length)) * DAY * clock.ticks)
    offsets = np.concatenate([[0], np.cumsum([len(own) for own in items])]).astype(np.int64)
    stamps = np.concatenate(times).astype(np.int64) if timed else np.full(offsets[-1], NO_TIME)
    return Dataset(
        users, ITEMS, offsets, np.concatenate(items).astype(np.int32), stamps,
        np.concatenate(splits).astype(np.uint8), clock,
    )  # fmt: skip


def sets(**shifts: Any) -> dict[str, Shift]:
    return TypeAdapter(dict[str, Shift]).validate_python(shifts)


def rows(made: Dataset, cold: bool = True, repeats: bool = True, **shift: Any) -> tuple[np.ndarray, np.ndarray, Any]:
    table, facts = members(made, sets(one=shift), cold, repeats)
    assert table.column("user").to_pylist() == made.cases("test").users.tolist()
    chosen = (table.column(name).to_numpy(zero_copy_only=False) for name in ("shifted", "natural"))
    return (*chosen, facts["one"])


def test_sets_are_of_the_users_that_are_judged() -> None:
    """With a part of the test users the sets have no other, as if the others had no test case."""
    made, judged = dataset(), np.arange(2, USERS + 1, 3)
    for shift in ({"kind": "popularity"}, {"kind": "temporal"}):
        table, _ = members(made, sets(one=shift), True, True, judged)
        assert table.column("user").to_pylist() == judged.tolist()
        shifted, natural = (table.column(name).to_numpy(zero_copy_only=False) for name in ("shifted", "natural"))
        assert 0 < shifted.sum() < natural.sum() <= len(judged)


def draw(counts: np.ndarray, targets: np.ndarray, **keys: Any) -> np.ndarray:
    """Which of as many users as there are targets are drawn."""
    users = np.arange(1, len(targets) + 1)
    return by_popularity(PopularityShift(**keys), users, targets, counts, np.ones(len(targets), bool)).shifted


def test_chances_are_those_of_drawing_one_by_one() -> None:
    """Two of four users: every pair as often as the weights say, one drawn after the other from those that are left."""
    counts = np.array([0, 8, 4, 2, 1])
    targets = np.array([1, 2, 3, 4])
    weights = 1 / counts[targets] ** 0.5
    expected: Counter[frozenset[int]] = Counter()
    for first in range(4):
        for second in set(range(4)) - {first}:
            chance = weights[first] / weights.sum() * weights[second] / (weights.sum() - weights[first])
            expected[frozenset({first, second})] += chance  # type: ignore[assignment]
    drawn = Counter(
        frozenset(np.flatnonzero(draw(counts, targets, share=0.5, power=0.5, seed=seed)).tolist())
        for seed in range(6000)
    )
    assert set(drawn) == set(expected)
    for pair, chance in expected.items():
        assert drawn[pair] / 6000 == pytest.approx(chance, abs=4 * math.sqrt(chance * (1 - chance) / 6000))


def test_targets_are_about_as_likely_whatever_their_popularity() -> None:
    rng = np.random.default_rng(1)
    counts = np.concatenate([[0], np.arange(200, 0, -10)])
    targets = rng.choice(np.arange(1, 21), 20_000, p=counts[1:] / counts[1:].sum())
    shares = np.bincount(targets[draw(counts, targets, share=0.02)], minlength=21)[1:] / 400
    # as a fair die of 20 sides gives: chi-square of 19 degrees, its 99.9 % point
    assert (400 * (shares - 0.05) ** 2 / 0.05).sum() < 43.8
    assert (400 * (counts[1:] / counts.sum() - 0.05) ** 2 / 0.05).sum() > 100


def test_a_lot_belongs_to_the_user() -> None:
    """Who else is there changes nothing of who comes first among the others."""
    counts, targets = np.array([0, 9, 3]), np.array([1, 2] * 50)
    drawn = np.flatnonzero(draw(counts, targets, share=0.3))
    early = drawn[drawn < 50]
    assert 0 < len(early) < len(drawn)
    assert np.flatnonzero(draw(counts, targets[:50], share=len(early) / 50)).tolist() == early.tolist()


def test_bins_against_a_loop() -> None:
    made = dataset()
    counts, cases = made.train_counts, made.cases("test")
    known = sorted((item for item in range(1, ITEMS + 1) if counts[item]), key=lambda item: (-counts[item], item))
    group = {item: place * 4 // len(known) for place, item in enumerate(known)}
    assert max(Counter(group.values()).values()) - min(Counter(group.values()).values()) <= 1
    assert equal_bins(counts, 4).tolist() == [group.get(item, -1) for item in range(ITEMS + 1)]
    shifted, natural, facts = rows(made, kind="popularity", draw="bins", bins=4)
    warm = [group[target] for target in cases.targets.tolist() if target in group]
    least = min(Counter(warm).values())
    assert Counter(group[target] for target in cases.targets[shifted].tolist()) == dict.fromkeys(range(4), least)
    assert natural.tolist() == [target in group for target in cases.targets.tolist()]
    assert facts["filled"] == 4


def test_a_bin_without_targets_gives_none() -> None:
    counts, targets = np.array([0, 9, 8, 3, 2, 1, 1]), np.array([1, 2, 2, 6, 6, 5])
    drawn = draw(counts, targets, draw="bins", bins=3)
    assert Counter(equal_bins(counts, 3)[targets[drawn]].tolist()) == {0: 3, 2: 3}


def test_the_draw_is_the_same_every_time_and_cold_targets_stay_out() -> None:
    made = dataset()
    shifted, natural, facts = rows(made, kind="popularity")
    popularity = made.train_counts[made.cases("test").targets]
    assert shifted.sum() == round(0.25 * (popularity > 0).sum())
    assert (natural == (popularity > 0)).all()
    assert not (shifted & ~natural).any()
    assert (rows(made, kind="popularity")[0] == shifted).all()
    assert (rows(made, kind="popularity", seed=1)[0] != shifted).any()
    assert facts["median_popularity"] == [np.median(popularity[shifted]), np.median(popularity[natural])]
    assert facts["median_popularity"][0] < facts["median_popularity"][1]


@pytest.mark.parametrize("first", [1_600_000_000, -30 * DAY, -(10**9)], ids=["2020", "around 1970", "before 1970"])
@pytest.mark.parametrize("unit", ["s", "ns"])
@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_late_targets_against_a_loop(share: float, unit: str, first: int) -> None:
    made = dataset(Clock(unit), first=first)
    times = made.timestamps[made.split == TEST].tolist()
    asked = max(1, round(share * len(times)))
    cut = sorted(times)[len(times) - asked]
    shifted, natural, facts = rows(made, kind="temporal", after=share)
    assert shifted.tolist() == [time >= cut for time in times]
    assert natural.tolist() == [time < cut for time in times]
    assert shifted.sum() >= asked  # equal times stand on one side
    assert facts["cut"] == made.clock.text(cut)
    trained = made.timestamps[made.split == TRAIN]
    assert facts["trained_after"] == (trained >= cut).mean() > 0
    assert facts["training_ends"] == made.clock.text(int(trained.max()))
    assert facts["without_time"] == 0


def test_a_day_is_a_cut_and_targets_without_a_time_are_on_no_side() -> None:
    made = dataset()
    times = made.timestamps.copy()
    lost = np.flatnonzero(made.split == TEST)[:40]
    times[lost] = NO_TIME
    some = Dataset(made.n_users, made.n_items, made.offsets, made.items, times, made.split)
    shifted, natural, facts = rows(some, kind="temporal", after="2020-10-20")
    moment = 1_603_152_000  # 2020-10-20, midnight
    stamps = times[made.split == TEST]
    assert shifted.tolist() == (stamps >= moment).tolist()
    assert natural.tolist() == ((stamps >= 0) & (stamps < moment)).tolist()
    assert facts["without_time"] == 40
    assert facts["cut"] == "2020-10-20T00:00:00"


def test_who_does_not_count_is_in_no_set() -> None:
    made = dataset()
    cases = made.cases("test")
    warm = made.train_counts[cases.targets] > 0
    assert cases.repeats.any()
    assert not warm.all()
    for shift in ({"kind": "popularity"}, {"kind": "popularity", "draw": "bins"}, {"kind": "temporal"}):
        shifted, natural, _ = rows(made, False, False, **shift)
        assert (shifted | natural).tolist() == (warm & ~cases.repeats).tolist()
        assert not (rows(made, True, False, **shift)[0] & cases.repeats).any()


@pytest.mark.parametrize(
    ("made", "shift", "words"),
    [
        (dataset(timed=False), {"kind": "temporal"}, "needs times, but no test target of the dataset has one"),
        (dataset(), {"kind": "temporal", "after": "2030-01-01"}, "leaves no later target; those with a time"),
        (dataset(), {"kind": "temporal", "after": "1999-01-01"}, "cut at 1999-01-01T00:00:00 leaves no earlier target"),
        (dataset(Clock(dated=False)), {"kind": "temporal", "after": "2020-10-20"}, "no dates but numbers"),
        (dataset(users=1), {"kind": "temporal"}, "no earlier target"),
        (dataset(users=3), {"kind": "popularity", "share": 0.1}, "test users draws 0, expected some"),
        (dataset(users=1), {"kind": "popularity", "draw": "bins"}, "are of one of 5 bins"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_refused_with_its_key(made: Dataset, shift: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=r"^evaluation\.shift\.one: ") as refused:
        rows(made, **shift)
    assert words in str(refused.value)


def config(shift: Any, source: dict[str, Any] | None = None) -> Any:
    log = source or {"source": "columns", "path": "log.csv", "timestamp": "time"}
    return load({"datasets": {"shop": log}, "experiment": {"datasets": ["shop"]}, "evaluation": {"shift": shift}})


def test_a_good_config() -> None:
    made = config({"late": {"kind": "temporal", "after": "2020-02-01"}, "not so popular": {"kind": "popularity"}})
    assert list(made.evaluation.shift) == ["late", "not so popular"]


@pytest.mark.parametrize(
    ("shift", "words"),
    [
        ({"late": {"kind": "temporal", "after": 1.5}}, "evaluation.shift.late.after: expected a share between 0 and 1"),
        ({"late": {"kind": "temporal", "after": "soon"}}, "'soon' is neither a share nor a day"),
        ({"late": {"kind": "temporl"}}, "did you mean 'temporal'"),
        ({"late": {"after": 0.1}}, "kind"),
        ({"rare": {"kind": "popularity", "draw": "bin"}}, "evaluation.shift.rare.draw"),
        ({"rare": {"kind": "popularity", "shar": 0.1}}, "did you mean 'share'"),
        ({"rare": {"kind": "popularity", "share": 1.0}}, "evaluation.shift.rare.share"),
        ({"tail": {"kind": "popularity"}}, "'tail' is what tables call another group"),
        ({"a|b": {"kind": "popularity"}}, "'a|b' is no name"),
    ],
)
def test_wrong_configs_are_refused(shift: Any, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        config(shift)
    assert words in str(refused.value)
    assert "evaluation.shift" in str(refused.value)


@pytest.mark.parametrize(
    "source", [{"source": "columns", "path": "log.csv"}, {"source": "sequences", "path": "log.txt"}]
)
def test_a_source_without_times_is_refused_before_anything_runs(source: dict[str, Any]) -> None:
    config({"rare": {"kind": "popularity"}}, source)
    with pytest.raises(ConfigError, match=r"shift\.late\.kind: 'temporal' needs times, and datasets\.shop has none"):
        config({"late": {"kind": "temporal"}}, source)
    with pytest.raises(ConfigError, match=r"datasets\.shop\.split: global_temporal needs times"):
        config({}, {**source, "split": {"kind": "global_temporal"}})


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    table, facts = members(dataset(), sets(late={"kind": "temporal"}, rare={"kind": "popularity"}), True, True)
    write_table(tmp_path / "shifts.parquet", table, "shifts", facts=facts)
    return tmp_path / "shifts.parquet"


def test_metrics_are_means_over_the_users_of_a_set(kept: Path) -> None:
    made, rng = dataset(), np.random.default_rng(2)
    users = rng.permutation(np.arange(1, USERS + 1))[:250]  # in any order, and not all of them
    ranks = rng.integers(1, 40, 250).astype(float)
    found = Shifts(kept).groups(users, ranks, Evaluation(cutoffs=[5, 10]), "NDCG@10")
    ndcg = metrics.ndcg(ranks, 10)
    for name, shift in {"late": {"kind": "temporal"}, "rare": {"kind": "popularity"}}.items():
        shifted, natural, facts = rows(made, **shift)
        means = {}
        for kind, members_of in ((SHIFTED, shifted), (NATURAL, natural)):
            mine = [ndcg[place] for place, user in enumerate(users) if members_of[user - 1]]
            assert found[kind][name]["users"] == len(mine)
            assert found[kind][name]["metrics"]["NDCG@10"] == pytest.approx(
                means.setdefault(kind, sum(mine) / len(mine))
            )
        drop = 100 * (means[NATURAL] - means[SHIFTED]) / means[NATURAL]
        assert found[SHIFTED][name]["metrics"]["drop of NDCG@10"] == pytest.approx(drop)
        text = sentence(name, facts, 7, 1234)
        assert text.startswith(f"{name}: 7 ")
        assert "1,234" in text


def test_nothing_to_lose_is_no_drop_and_a_user_nobody_knows_is_refused(kept: Path) -> None:
    found = Shifts(kept)
    groups = found.groups(np.arange(1, USERS + 1), np.full(USERS, np.inf), Evaluation(cutoffs=[10]), "NDCG@10")
    assert groups[SHIFTED]["late"]["metrics"] == {"Hit@10": 0.0, "NDCG@10": 0.0, "MRR": 0.0}
    nobody = found.groups(np.zeros(0, np.int32), np.zeros(0), Evaluation(cutoffs=[10]), "NDCG@10")
    assert nobody[SHIFTED]["rare"] == {"users": 0, "metrics": {}}
    with pytest.raises(ArtifactError, match=r"shifts.parquet: says nothing of 1 test users, the first is 999"):
        found.of("late", np.array([3, 999]))
