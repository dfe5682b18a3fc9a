"""Training and judging a click-through model: it learns, it resumes to the digit, it sees nothing held out."""

from __future__ import annotations

import json
import math
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from ctr_logs import make_run, random_rows, samples_settings, write_log

from tessera.artifacts.codes import Part, SemanticIds, write_codes
from tessera.artifacts.models import write_tensors
from tessera.artifacts.tables import ArtifactError, describe, read_table, write_table
from tessera.ctr.data import load_catalogue, load_samples
from tessera.ctr.evaluate import among_heaviest, evaluate_model
from tessera.ctr.evaluate import judge as judge_samples
from tessera.ctr.retrieval import best, ordered
from tessera.ctr.samples import make_samples
from tessera.ctr.train import plan, predict, train_model
from tessera.evaluation import calibration, clicks
from tessera.settings.ctr import CTREvaluation

torch.set_num_threads(1)
CUTS = {"split": {"past": 0.1, "valid": 0.15, "test": 0.15}}


def make(folder: Path, rows, items: int = 30) -> Path:
    data = write_log(folder / "data", rows, items, {item: "ab"[item % 2] for item in range(1, items + 1)})
    make_samples(samples_settings(**CUTS), data, folder / "samples")
    return folder / "samples"


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("ctr"), random_rows(users=30, length=60, ties=False))


def train(run, samples: Path, folder: Path, codes: Path | None = None) -> Path:
    train_model(run, samples, codes, folder / "model.safetensors", folder / "state")
    return folder / "model.safetensors"


def judge(run, samples: Path, folder: Path, codes: Path | None = None, **keys):
    settings = CTREvaluation.model_validate({"resamples": 100, "requests": 2, "candidates": 5, **keys})
    outputs = folder / "predictions.parquet", folder / "metrics.json"
    return evaluate_model(run, settings, folder / "model.safetensors", samples, codes, *outputs)


def write_ids(path: Path, items: int, without: tuple[int, ...] = ()) -> Path:
    codes = np.stack([np.arange(items + 1) % 4, np.arange(items + 1) // 2 % 5], 1)
    codes[[0, *without]] = -1
    write_codes(path, SemanticIds(codes, (Part("text", (4, 5)),)), {}, {})
    books = {f"codebooks.0.{level}": torch.randn(size, 6) for level, size in enumerate((4, 5))}
    write_tensors(path.with_name("model.safetensors"), books)
    return path


def test_it_learns_who_clicks_what(samples, tmp_path):
    run = make_run(model="din", window=None, training={"epochs": 12})
    train(run, samples, tmp_path)
    found = judge(run, samples, tmp_path, history_bins=[20, 40])
    assert found["metrics"]["AUC"] > 0.7
    assert found["latency"]["p50_ms"] > 0
    table = read_table(tmp_path / "predictions.parquet", "ctr_predictions")
    users, labels, predicted = (table.column(name).to_numpy() for name in ("user", "label", "probability"))
    assert found["metrics"] == pytest.approx(clicks.summarize(users, labels, predicted, 15))
    assert sum(group["samples"] for group in found["groups"]["history"].values()) == len(users)
    read = load_samples(samples)
    for told in found["calibrated"].values():
        assert (told["fitted_on"], told["samples"]) == (len(read.of("valid")), len(users))
    assert found["calibrated"]["Platt"]["metrics"]["AUC"] == pytest.approx(found["metrics"]["AUC"], abs=1e-12)
    curve = [json.loads(line) for line in (tmp_path / "history.jsonl").open()]
    assert curve[-1]["cross-entropy"] < curve[0]["cross-entropy"]


def test_a_model_that_predicts_nan_is_refused(samples):
    """Sorted last, it would have a plausible AUC."""
    read = load_samples(samples)
    test = read.of("test")

    class Undefined(torch.nn.Module):
        def forward(self, batch):
            return torch.where(torch.arange(len(batch)) == 1, torch.nan, 0.5)

    with pytest.raises(ValueError, match=r"the model predicts NaN for sample \d+, and 1 more"):
        predict(Undefined(), read, test[:10], None, 5, torch.device("cpu"))


def test_calibration_is_fitted_on_validation_alone(samples, tmp_path, monkeypatch):
    """Other labels of test impressions: the probabilities after each calibration stay, to the bit."""
    run = make_run()
    train(run, samples, tmp_path)
    made: list[tuple[np.ndarray, ...]] = []

    def kept(fit):
        def fitted(labels, probabilities):
            better = fit(labels, probabilities)
            made.append((labels, probabilities, better(np.linspace(0, 1, 101))))
            return better

        return fitted

    monkeypatch.setattr(calibration, "METHODS", {name: kept(fit) for name, fit in calibration.METHODS.items()})
    before = judge(run, samples, tmp_path)
    table = read_table(samples / "samples.parquet", "ctr_samples")
    test = np.array(table.column("split").to_pylist()) == "test"
    labels = table.column("label").to_numpy()
    turned = pa.array(np.where(test, 1 - labels, labels), table.schema.field("label").type)
    other = tmp_path / "other"
    shutil.copytree(samples, other)
    about = describe(samples / "samples.parquet")
    again = table.set_column(table.schema.get_field_index("label"), "label", turned).replace_schema_metadata(None)
    write_table(other / "samples.parquet", again, "ctr_samples", time_unit=about["time_unit"])
    after = judge(run, other, tmp_path)
    assert after["clicks"] == pytest.approx(1 - before["clicks"])
    assert after["calibrated"] != before["calibrated"]
    assert len(made) == 4
    for first, second in zip(made[:2], made[2:], strict=True):
        for one, two in zip(first, second, strict=True):
            np.testing.assert_array_equal(one, two)
    assert len(made[0][0]) == len(load_samples(samples).of("valid"))


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(samples, tmp_path):
    first, second, third = (
        train(make_run(seed), samples, tmp_path / str(n)).read_bytes() for n, seed in enumerate((1, 1, 2))
    )
    assert first == second
    assert first != third


def test_nothing_held_out_reaches_the_weights(samples, tmp_path):
    rows = random_rows(users=30, length=60, ties=False)
    found = load_samples(samples)
    cut = found.moments[found.of("valid")].min()
    items = iter(np.random.default_rng(3).permutation([row[1] for row in rows if row[2] >= cut]).tolist())
    other = make(tmp_path / "other", [(u, next(items) if t >= cut else i, t, r) for u, i, t, r in rows])
    assert (other / "items.npy").read_bytes() != (samples / "items.npy").read_bytes()
    for model in ("din", "sim_hard"):
        run = make_run(model=model)
        before, after = (train(run, s, tmp_path / f"{model}{n}") for n, s in enumerate((samples, other)))
        assert before.read_bytes() == after.read_bytes()


def test_an_epoch_takes_every_sample_once():
    lengths = np.random.default_rng(0).integers(0, 500, 1003)
    batches = plan(lengths, 32, seed=1, epoch=0)
    assert sorted(np.concatenate(batches)) == list(range(1003))
    assert max(map(len, batches)) == 32
    padded = sum(len(b) * lengths[b].max() for b in batches)
    assert padded < 1.15 * lengths.sum()
    assert [b.tolist() for b in plan(lengths, 32, 1, 1)] != [b.tolist() for b in batches]


def test_longest_history_is_a_setting(samples, tmp_path):
    run = make_run(max_history=3, model="avg")
    train(run, samples, tmp_path)
    short = judge(run, samples, tmp_path)
    whole = judge(run.model_copy(update={"max_history": None}), samples, tmp_path)
    assert short["metrics"]["log loss"] != whole["metrics"]["log loss"]


@pytest.mark.parametrize("late", [5.0, 1.0])
def test_one_class_at_the_end_has_no_auc(tmp_path, late):
    rows = [
        (user, 1 + (3 * n + user) % 30, 10 * n + user, late if n >= 20 else 1.0 + 4 * (n % 2))
        for user in range(1, 9)
        for n in range(30)
    ]
    data = write_log(tmp_path / "data", rows, 30)
    make_samples(samples_settings(source="ratings", threshold=4.0, **CUTS), data, tmp_path / "samples")
    samples = tmp_path / "samples"
    run = make_run(training={"batch": 8})
    train(run, samples, tmp_path)
    found = judge(run, samples, tmp_path)
    assert found["metrics"]["AUC"] is None
    assert math.isfinite(found["metrics"]["log loss"])


def test_new_users_unknown_items_and_items_without_codes_get_predictions(tmp_path):
    rows = random_rows(users=6, items=28, length=50, ties=False)
    last = max(row[2] for row in rows)
    rows += [(7, 29, last - 1, 1.0), (7, 30, last, 0.0)]
    samples = make(tmp_path, rows)
    codes = write_ids(tmp_path / "ids/codes.parquet", 30, without=(2, 30))
    run = make_run(model="r2led", k=4, recent=4)
    train(run, samples, tmp_path, codes)
    found = judge(run, samples, tmp_path, codes)
    groups = found["groups"]
    assert groups["history"]["empty"]["samples"] == 1
    assert groups["popularity"]["unknown"]["samples"] == 2
    assert found["samples"] == len(load_samples(samples).of("test"))


def test_an_item_that_training_showed_is_not_unknown(tmp_path):
    """Though nobody clicked it: its id has a vector that was trained."""
    rows = random_rows(users=6, items=28, length=50, ties=False)
    times = sorted(row[2] for row in rows)
    rows += [(7, 29, times[len(times) // 2], 0.0), (7, 29, times[-1], 0.0), (7, 30, times[-1] + 1, 1.0)]
    folder = make(tmp_path, rows)
    samples, catalogue = load_samples(folder), load_catalogue(folder)
    assert (catalogue.popularity[29], catalogue.popularity[30]) == (0, 0)
    test = samples.of("test")
    assert {29, 30} <= set(samples.targets[test].tolist())
    settings = CTREvaluation(resamples=100)
    groups = judge_samples(samples, test, np.full(len(test), 0.5), catalogue, settings)["groups"]["popularity"]
    assert groups["unknown"]["samples"] == 1
    assert groups["head"]["samples"] + groups["tail"]["samples"] == len(test)


def test_what_must_be_said_of_a_model_stands_with_its_metrics(samples, tmp_path):
    ids = write_ids(tmp_path / "codes.parquet", 30)
    for name, codes, said in (("r2led", ids, ["a reconstruction from the abstract"]), ("avg", None, [])):
        run = make_run(model=name, training={"epochs": 1})
        run = run.model_copy(update={"remarks": run.model.remarks()})
        train(run, samples, tmp_path / name, codes)
        assert judge(run, samples, tmp_path / name, codes)["remarks"] == said
        assert json.loads((tmp_path / name / "metrics.json").read_text())["remarks"] == said


def test_retrieval_is_compared_with_attention(samples, tmp_path):
    settings = CTREvaluation(resamples=100, requests=0, recall_samples=40)
    whole = make_run(model="din", window=None)
    train(whole, samples, tmp_path / "din")
    found = {}
    for k in (5, 1000):
        run = make_run(model="eta", k=k)
        folder = tmp_path / f"eta{k}"
        train(run, samples, folder)
        found[k] = evaluate_model(
            run, settings, folder / "model.safetensors", samples, None, folder / "p.parquet", folder / "m.json",
            (whole, tmp_path / "din/model.safetensors"),
        )["retrieval"]  # fmt: skip
    assert found[1000]["recall"] == pytest.approx(1)  # who takes everything finds everything
    assert found[1000]["weight"] == pytest.approx(1)
    assert 0 < found[5]["recall"] < 1
    assert found[5]["selected"] == pytest.approx(5, abs=0.5)


def test_no_recall_is_told_where_nothing_is_compared(tmp_path):
    """Not 0, which would say that nothing was found."""
    rows = random_rows(users=10, length=20, ties=False)
    rows += [(11 + n, 1 + n % 30, 2 * 10**6 + n, float(n % 2)) for n in range(60)]  # nobody of the test has a history
    samples = make(tmp_path, rows)
    read = load_samples(samples)
    assert read.lengths[read.of("test")].max() == 0
    whole, run = make_run(model="din", window=None), make_run(model="eta", k=5)
    train(whole, samples, tmp_path / "din")
    train(run, samples, tmp_path / "eta")
    reference = whole, tmp_path / "din/model.safetensors"
    outputs = tmp_path / "p.parquet", tmp_path / "m.json"
    for wanted, expected in ((40, {"selected": 0.0, "recall": None, "weight": None}), (0, None)):
        settings = CTREvaluation(resamples=100, requests=0, recall_samples=wanted)
        found = evaluate_model(
            run, settings, tmp_path / "eta/model.safetensors", samples, None, *outputs, reference
        ).get("retrieval")  # fmt: skip
        assert found == (expected if expected is None else {"samples": found["samples"], **expected})


def test_retrieval_by_the_weights_of_the_reference_finds_all():
    """Histories in which items come again, which weigh the same each time."""
    generator = torch.Generator().manual_seed(0)
    items = torch.randint(0, 9, (40, 30), generator=generator)
    real = torch.arange(30) < torch.randint(0, 31, (40, 1), generator=generator)
    heavy = torch.where(real, torch.rand(9, generator=generator)[items], -1.0)
    later = best(ordered(heavy), 7, real).mask(30)
    earlier = best(ordered(heavy.flip(1)), 7, real.flip(1)).mask(30).flip(1)
    assert not torch.equal(later, earlier)
    for chosen in (later, earlier):
        assert torch.equal(among_heaviest(heavy, chosen), chosen)
    other = best(torch.arange(30).expand(40, 30).contiguous(), 7, real).mask(30)
    for row, found in enumerate(among_heaviest(heavy, other)):
        few = heavy[row][other[row]].tolist()
        most = sorted(heavy[row].tolist(), reverse=True)[: len(few)]
        assert int(found.sum()) == sum(weight >= most[-1] for weight in few)
    assert not among_heaviest(heavy[:, :0], other[:, :0]).any()


def test_weights_of_another_catalogue_are_refused(samples, tmp_path):
    run = make_run()
    train(run, samples, tmp_path)
    other = make(tmp_path / "other", random_rows(items=29), 29)
    with pytest.raises(ArtifactError, match="trained on 30 items, the samples have 29"):
        judge(run, other, tmp_path)
    with pytest.raises(ArtifactError, match="does not hold the weights"):
        judge(make_run(dim=9), samples, tmp_path)


def test_the_catalogue_knows_codes(samples, tmp_path):
    codes = write_ids(tmp_path / "ids/codes.parquet", 30)
    found = load_catalogue(samples, codes)
    assert found.codes is not None
    assert found.codebooks[0, 1].shape == (5, 6)
    assert found.categories.tolist() == [0, *([2, 1] * 15)]
    assert (found.items, found.users, found.n_categories) == (30, 30, 2)


PROGRAM = """
import sys, time
from pathlib import Path
import tessera.ctr.train as module
from tessera.artifacts.logs import stage
from tessera.settings.ctr import CTRRun
inner = module._losses
def slow(*arguments):
    time.sleep(0.02)
    return inner(*arguments)
module._losses = slow
with stage(None):
    run = CTRRun.model_validate_json(sys.argv[1])
    module.train_model(run, Path(sys.argv[2]), None, Path(sys.argv[3]), Path(sys.argv[4]))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_ends_with_the_same_weights(how, samples, tmp_path):
    run = make_run(model="din", training={"epochs": 2, "checkpoint_seconds": 0.0})
    whole = train(run, samples, tmp_path / "whole")
    output, state = tmp_path / "killed/model.safetensors", tmp_path / "state"
    command = [sys.executable, "-c", PROGRAM, run.model_dump_json(), str(samples), str(output), str(state)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while process.poll() is None and not list(state.glob("*/checkpoint.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.1)
    process.send_signal(how)
    stderr = process.communicate(timeout=120)[1]
    assert process.returncode == (-9 if how == signal.SIGKILL else 143), stderr
    assert not output.exists()
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True, timeout=240)
    assert "resuming at step" in done.stderr
    assert output.read_bytes() == whole.read_bytes()
    assert not list(state.glob("*/checkpoint.safetensors"))
