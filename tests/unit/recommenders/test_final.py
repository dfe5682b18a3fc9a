"""Training for exactly so many epochs as another run needed: the same weights, and nothing validates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pattern import make_run, reads, write_dataset
from stopped_training import stopped_after

from tessera.recommenders.train import train_run
from tessera.settings.runs import Run


def trained(run: Run, data: Path, folder: Path, validated: Path | None = None) -> Path:
    output = folder / "model.safetensors"
    train_run(run, data, reads(), output, folder / "state", validated=validated)
    return output


@pytest.mark.parametrize(
    ("recommender", "schedule"),
    [("sasrec", "constant"), ("gru4rec", "constant"), ("sasrec", "linear"), ("gru4rec", "cosine")],
)
def test_the_same_data_give_the_weights_that_were_best(
    recommender: str, schedule: str, data: Path, tmp_path: Path
) -> None:
    """Also where rates fall: they do so over the epochs that the validated run might have taken."""
    run = make_run(recommender, epochs=20, patience=2, learning_rate=0.03, schedule=schedule)
    first = trained(run, data, tmp_path / "validated")
    told = json.loads(first.with_name("model.json").read_text())
    assert told["best_epoch"] < told["epochs"], "it went on after the best: otherwise nothing is tested"
    final = trained(run, data, tmp_path / "final", first.with_name("model.json"))
    assert final.read_bytes() == first.read_bytes()
    again = json.loads(final.with_name("model.json").read_text())
    assert again["epochs"] == again["best_epoch"] == told["best_epoch"]
    assert again["validation"] is None


def test_validation_cases_change_nothing(tmp_path: Path) -> None:
    """A final run looks at no validation or test target of the dataset but as rows that train, or not at all."""
    made = [write_dataset(tmp_path / str(swap), swap_targets=swap) for swap in (False, True)]
    validated = tmp_path / "model.json"
    validated.write_text(json.dumps({"best_epoch": 2}))
    run = make_run("sasrec", epochs=12)
    files = [trained(run, data, tmp_path / f"run-{n}", validated).read_bytes() for n, data in enumerate(made)]
    assert files[0] == files[1]


def test_a_run_that_does_not_say_how_long_is_refused(data: Path, tmp_path: Path) -> None:
    validated = tmp_path / "model.json"
    validated.write_text("{}")
    with pytest.raises(ValueError, match=r"model\.json: does not say after how many epochs the run was best"):
        trained(make_run("sasrec"), data, tmp_path / "final", validated)


def test_heuristics_count_and_need_nobody(data: Path, tmp_path: Path) -> None:
    run = make_run(system={"recommender": "popular"})
    assert (
        trained(run, data, tmp_path / "a", tmp_path / "absent.json").read_bytes()
        == trained(run, data, tmp_path / "b").read_bytes()
    )


@pytest.mark.parametrize("after", [1, 7, 16])
def test_a_final_run_that_was_stopped_goes_on_to_the_same_weights(after: int, data: Path, tmp_path: Path) -> None:
    validated = tmp_path / "model.json"
    validated.write_text(json.dumps({"best_epoch": 4}))
    run = make_run("sasrec", checkpoint_seconds=0.0, batch_tokens=200)
    expected = trained(run, data, tmp_path / "whole", validated).read_bytes()
    with stopped_after(after):
        trained(run, data, tmp_path / "stopped", validated)
    assert list((tmp_path / "stopped/state").rglob("checkpoint.safetensors"))
    assert trained(run, data, tmp_path / "stopped", validated).read_bytes() == expected
