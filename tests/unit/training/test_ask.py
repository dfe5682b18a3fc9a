"""Rounds of Optuna's samplers: the same for the same trials, within the space, spread in a round; and they learn."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tessera.artifacts.files import read_json, write_json
from tessera.settings.search import Asking, Dimension
from tessera.training.ask import ask_round, parameter

pytest.importorskip("optuna", reason="the extra `optuna` is not installed")

RATE, LAYERS, ADAPTER = "training.learning_rate", "backbones.sasrec.layers", "systems.mine.items.adapter"
SPACE = {
    RATE: Dimension(low=1.0e-4, high=1.0e-1, log=True),
    LAYERS: Dimension(low=1, high=4),
    ADAPTER: Dimension(choices=[[16], [32, 16], None]),
}
ROUND = 4


def reached(values: dict[str, Any]) -> float:
    """A validation that is best, 1, at a rate of 0.01, four layers and no adapter."""
    rate = 1 - (np.log10(values[RATE]) + 2) ** 2 / 4
    return float(rate - 0.05 * (4 - values[LAYERS]) - 0.1 * (values[ADAPTER] is not None))


def write_trial(path: Path, values: dict[str, Any], validation: float | None, seconds: float = 1.0) -> Path:
    write_json(path, {"values": values, "validation": validation, "seconds": seconds})
    return path


def first_round(folder: Path, **more: Any) -> list[Path]:
    rng = np.random.default_rng(0)
    drawn = [{path: SPACE[path].value(rng.random()) for path in SPACE} for _ in range(ROUND)]
    return [write_trial(folder / f"trial-{n}.json", one, reached(one), **more) for n, one in enumerate(drawn)]


def asked(trials: list[Path], folder: Path, sampler: str = "tpe", seed: int = 0) -> dict[str, dict[str, Any]]:
    output = folder / "round.json"
    ask_round(Asking(space=SPACE, sampler=sampler, seed=seed, round=ROUND), trials, output)
    values: dict[str, dict[str, Any]] = read_json(output)["values"]
    return values


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_the_same_trials_give_the_same_round_and_others_another(sampler: str, tmp_path: Path) -> None:
    trials = first_round(tmp_path)
    values = asked(trials, tmp_path, sampler)
    assert [*values] == ["4", "5", "6", "7"]
    # how long a trial took, and where it lies, say nothing of where to go
    assert asked(first_round(tmp_path / "again", seconds=99.0), tmp_path, sampler) == values
    assert asked(trials, tmp_path, sampler, seed=1) != values
    for one in values.values():
        assert 1.0e-4 <= one[RATE] <= 1.0e-1
        assert one[LAYERS] in (1, 2, 3, 4)
        assert one[ADAPTER] in ([16], [32, 16], None)
        assert one[RATE] == float(f"{one[RATE]:.6g}")
    assert len({str(one) for one in values.values()}) == ROUND  # each goes elsewhere


def test_later_rounds_are_better_than_the_first(tmp_path: Path) -> None:
    """Over five seeds of TPE, for one may be unlucky."""
    first, last = [], []
    for seed in range(5):
        trials = first_round(tmp_path / str(seed))
        for _ in range(7):
            for number, values in asked(trials, tmp_path, seed=seed).items():
                trials.append(write_trial(tmp_path / str(seed) / f"trial-{number}.json", values, reached(values)))
        outcomes = [read_json(path)["validation"] for path in trials]
        first.append(np.mean(outcomes[:ROUND]))
        last.append(np.mean(outcomes[-2 * ROUND :]))
    assert np.mean(last) > np.mean(first) + 0.1


def test_where_trials_failed_is_left_alone(tmp_path: Path) -> None:
    """Rates above 0.01, a third of the space, fail; below, the best is 0.002."""

    def validation(values: dict[str, Any]) -> float | None:
        return None if values[RATE] > 0.01 else 0.5 - 0.1 * abs(float(np.log10(values[RATE] / 0.002)))

    failed = []
    for seed in range(5):
        trials = first_round(tmp_path / str(seed))
        for path in trials:
            write_trial(path, read_json(path)["values"], validation(read_json(path)["values"]))
        for _ in range(7):
            for number, values in asked(trials, tmp_path, seed=seed).items():
                trials.append(write_trial(tmp_path / str(seed) / f"trial-{number}.json", values, validation(values)))
        failed += [read_json(path)["validation"] is None for path in trials[-2 * ROUND :]]
    assert np.mean(failed) < 0.2


def test_all_may_fail(tmp_path: Path) -> None:
    trials = first_round(tmp_path)
    for path in trials:
        write_trial(path, read_json(path)["values"], None)
    for sampler in ("tpe", "gp"):
        assert len(asked(trials, tmp_path, sampler)) == ROUND


def test_the_ends_of_a_range_can_be_told(tmp_path: Path) -> None:
    """A setting has six digits, and yet lies within what was tried on the settings."""
    dimension = Dimension(low=0.12345678, high=0.23456781)
    trials = [write_trial(tmp_path / f"{n}.json", {"training.x": dimension.value(n)}, 0.5) for n in (0, 1)]
    assert (dimension.value(0), dimension.value(1)) == (0.123457, 0.23456781)
    ask_round(Asking(space={"training.x": dimension}, sampler="tpe", seed=0, round=2), trials, tmp_path / "round.json")
    assert len(read_json(tmp_path / "round.json")["values"]) == 2


def test_whole_numbers_below_zero_have_equal_shares() -> None:
    drawn = Counter(Dimension(low=-3, high=3).value((n + 0.5) / 700) for n in range(700))
    assert drawn == dict.fromkeys(range(-3, 4), 100)


def test_choices_that_are_equal_are_told_apart_by_their_type() -> None:
    switch = Dimension(choices=[0, 1, False, True, None])
    assert [parameter(switch, value) for value in (0, 1, False, True, None)] == [0, 1, 2, 3, 4]
    assert parameter(switch, 1.0) == 1
