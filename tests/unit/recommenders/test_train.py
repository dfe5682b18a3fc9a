import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from pattern import ITEMS, make_run, reads, write_dataset, write_interests_of

import tessera.recommenders.train
from forked_processes import run_processes
from same_training import assert_same_training
from tessera.artifacts.models import read_tensors
from tessera.artifacts.tables import ArtifactError, write_item_table
from tessera.recommenders.evaluate import evaluate_run
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.systems.backbone import SequentialRecommender
from tessera.recommenders.train import launch, train_run
from tessera.settings.evaluation import Evaluation
from tessera.training.errors import TrainingError


def train(run, data, folder, table=None):
    output = folder / "model.safetensors"
    train_run(run, data, reads(table), output, folder / "state")
    return output


def judge(run, data, model, table=None):
    return evaluate_run(
        run,
        Evaluation(),
        model,
        data,
        reads(table),
        None,
        model.with_name("evaluation.parquet"),
        model.with_name("m.json"),
    )["metrics"]


@pytest.mark.parametrize("recommender", ["sasrec", "gru4rec", "bert4rec", "filter", "hstu"])
def test_every_backbone_learns_the_pattern(recommender, data, tmp_path):
    epochs = 30 if recommender == "bert4rec" else 15
    rate = 0.003 if recommender == "bert4rec" else 0.01
    run = make_run(recommender, epochs=epochs, patience=100, learning_rate=rate)
    found = judge(run, data, train(run, data, tmp_path))
    assert found["Hit@5"] > 0.7  # nine of ten steps follow the pattern; chance is 0.2


@pytest.mark.parametrize(
    "loss",
    [
        {"kind": "sampled_softmax", "negatives": 20},
        {"kind": "gbce", "negatives": 8},
        {"kind": "bce"},
        {"kind": "bpr", "negatives": 4},
    ],
)
def test_every_loss_learns_the_pattern(loss, data, tmp_path):
    run = make_run(system={"loss": loss}, epochs=40, patience=100)
    assert judge(run, data, train(run, data, tmp_path))["Hit@5"] > 0.6


@pytest.mark.parametrize("kind", ["popular", "item_knn", "markov"])
def test_heuristics_go_the_same_way(kind, data, tmp_path):
    run = make_run(system={"recommender": kind})
    found = judge(run, data, train(run, data, tmp_path))
    assert found["Hit@5"] > (0.7 if kind == "markov" else 0.0)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(data, tmp_path):
    runs = [make_run(), make_run(), make_run().model_copy(update={"seed": 2})]
    first, second, third = (train(r, data, tmp_path / str(i)).read_bytes() for i, r in enumerate(runs))
    assert first == second
    assert first != third


def test_held_out_targets_do_not_reach_training(data, tmp_path):
    other = write_dataset(tmp_path / "other", swap_targets=True)
    for kind in ("sasrec", "bert4rec"):
        assert train(make_run(kind), data, tmp_path / "a").read_bytes() == (
            train(make_run(kind), other, tmp_path / "b").read_bytes()
        )
    for kind in ("popular", "item_knn", "markov"):
        run = make_run(system={"recommender": kind})
        assert train(run, data, tmp_path / "a").read_bytes() == train(run, other, tmp_path / "b").read_bytes()


PROGRAM = """
import sys
from pathlib import Path
from tessera.artifacts.logs import stage
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.train import train_run
from tessera.settings.runs import Run
run = Run.model_validate_json(sys.argv[1])
with stage(None):
    train_run(run, Path(sys.argv[2]), RunInputs(), Path(sys.argv[3]), Path(sys.argv[4]))
"""


JUDGED = """
from tessera.recommenders.evaluate import evaluate_run
from tessera.settings.evaluation import Evaluation
model = Path(sys.argv[3])
outputs = model.with_name("evaluation.parquet"), model.with_name("metrics.json")
evaluate_run(run, Evaluation(), model, Path(sys.argv[2]), RunInputs(), None, *outputs)
slow = {"torch._dynamo", "torch._inductor", "sympy", "transformers", "accelerate", "sklearn", "pandas"}
assert not slow & set(sys.modules), slow & set(sys.modules)
"""


def test_a_run_and_its_judgement_load_neither_a_compiler_nor_language_models(data, tmp_path):
    """Each takes longer to load than many a training, and half of the jobs of an experiment are of these two kinds."""
    command = [sys.executable, "-c", PROGRAM + JUDGED, make_run(epochs=1).model_dump_json(), str(data)]
    subprocess.run([*command, str(tmp_path / "model.safetensors"), str(tmp_path / "state")], check=True)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_ends_with_the_same_weights(how, data, tmp_path):
    run = make_run(epochs=25, patience=100, checkpoint_seconds=0.05)
    whole = train(run, data, tmp_path / "whole")
    output, state = tmp_path / "killed" / "model.safetensors", tmp_path / "state"
    command = [sys.executable, "-c", PROGRAM, run.model_dump_json(), str(data), str(output), str(state)]
    kills = 0
    for _ in range(30):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        before = _stamp(state)
        # let it get a little further than the last checkpoint, then strike
        while process.poll() is None and _stamp(state) in (None, before) and time.monotonic() < deadline:
            time.sleep(0.005)
        if process.poll() is None and kills < 2:
            time.sleep(0.03)
            process.send_signal(how)
            kills += 1
        stderr = process.communicate(timeout=120)[1]
        if output.exists():
            break
        assert process.returncode == (-9 if how == signal.SIGKILL else 143), stderr
    assert kills == 2
    assert output.read_bytes() == whole.read_bytes()
    curves = [[json.loads(line) for line in f.with_name("history.jsonl").open()] for f in (whole, output)]
    for curve in curves:
        for row in curve:
            for key in ("seconds", "targets_per_second", "validation_seconds"):
                row.pop(key, None)
    assert curves[0] == curves[1]
    assert not list(state.glob("*/checkpoint.safetensors"))


def _stamp(state: Path) -> int | None:
    files = list(state.glob("*/checkpoint.safetensors"))
    try:
        return files[0].stat().st_mtime_ns if files else None
    except FileNotFoundError:
        return None


@pytest.mark.parametrize(
    ("device", "system"),
    [
        ("auto", "ids"),
        *(("cpu", system) for system in ("ids", "pad", "findrec", "eimf", "tpad", "i3_mrec", "i3_mrec_graph", "cider")),
        ("cpu", "markov_mixture"),
    ],
)
def test_two_processes_give_the_numbers_of_one(data, tmp_path, monkeypatch, device, system):
    """One of them by the launcher, which takes longer than what it starts."""
    if device == "auto" and torch.cuda.is_available():
        pytest.skip("auto is a GPU here, and two processes may not share one")
    if device == "cpu":
        monkeypatch.setattr(tessera.recommenders.train, "run_processes", run_processes)
    shape = {"epochs": 2, "gradient_clip": 0.5, "device": device}
    systems = {
        "ids": None,
        "pad": {"recommender": "pad", "table": "t", "adapter": [8], "align": {"most_items": 20}},
        "findrec": {
            "recommender": "findrec", "text": "t", "width": 8, "dropout": 0.0, "alignment": {"most_items": 20}
        },
        "tpad": {
            "recommender": "tpad", "text": "t", "disentangling": {"width": 4, "hidden": 8, "steps": 5, "items": 20}
        },
        "eimf": {"recommender": "eimf", "interests": "w", "dim": 16, "max_length": 12, "dropout": 0.0, "typical": 9},
        "cider": {
            "recommender": "cider", "items": {"table": "t", "adapter": [8]},
            "damage": {"pattern": "feature"}, "distillation": {"scored_items": 20},
        },
        "markov_mixture": {
            "recommender": "markov_mixture", "base": {"items": {"table": "t", "adapter": [8]}},
            "similar": {"neighbours": 3}, "grid": [0.3], "strengths": [2.0],
        },
        "i3_mrec": {
            "recommender": "i3_mrec", "text": "t", "ids": "environment", "adapter": [8], "dropout": 0.0,
            "keep": {"weight": 0.1, "most_items": 20}, "compress": {"weight": 0.1, "most_items": 20},
            "invariance": {"penalty": "gradient", "warm_up": 0.1},
        },
        "i3_mrec_graph": {
            "recommender": "i3_mrec_graph", "text": "t", "image": "t", "dim": 12, "dropout": 0.0,
            "keep": {"weight": 0.1, "most_items": 20}, "invariance": {"weight": 10.0, "warm_up": 0.1},
        },
    }  # fmt: skip
    tables = system in ("pad", "findrec", "tpad", "i3_mrec", "i3_mrec_graph", "cider", "markov_mixture")
    read = reads(make_table(tmp_path, skip=(7, 8))) if tables else reads()
    if system == "eimf":
        read = RunInputs(tables={"w": str(write_interests_of(tmp_path / "w.parquet", range(2, 80, 3)))})
    one = make_run("sasrec", systems[system], **shape)
    if one.backbone is not None:
        backbone = one.backbone.model_copy(update={"dropout": 0.0})
        one = one.model_copy(update={"backbone": backbone})
    two = one.model_copy(update={"training": one.training.model_copy(update={"processes": 2})})
    train_run(one, data, read, tmp_path / "one/model.safetensors", tmp_path / "state")
    single = read_tensors(tmp_path / "one/model.safetensors")
    output = tmp_path / "two" / "model.safetensors"
    launch(two, data, read, output, tmp_path / "state", "", None)
    shared = read_tensors(output)
    assert_same_training(single, shared, one.training.learning_rate)


def test_two_processes_draw_what_one_does_where_only_one_has_the_longest_history(data, tmp_path, monkeypatch):
    """What a step reads, and so what FindRec draws, is of the whole batch; weights stand still here."""
    monkeypatch.setattr(tessera.recommenders.train, "run_processes", run_processes)
    score = {"learning_rate": 1e-9}
    system = {"recommender": "findrec", "text": "t", "width": 8, "dropout": 0.0, "alignment": {"score": score}}
    one = make_run(system=system, epochs=1, batch_tokens=40, learning_rate=1e-9)
    one = one.model_copy(update={"backbone": one.backbone.model_copy(update={"dropout": 0.0})})
    two = one.model_copy(update={"training": one.training.model_copy(update={"processes": 2})})
    read = reads(make_table(tmp_path))
    train_run(one, data, read, tmp_path / "one/model.safetensors", tmp_path / "state")
    launch(two, data, read, tmp_path / "two/model.safetensors", tmp_path / "state", "", None)
    rows = [json.loads((tmp_path / name / "history.jsonl").read_text()) for name in ("one", "two")]
    for key in ("divergence", "alignment", "score_matching", "use_entropy", "loss"):
        assert rows[0][key] == pytest.approx(rows[1][key], rel=1e-4), key


def make_table(folder, skip=()):
    rng = np.random.default_rng(0)
    ids = np.array([i for i in range(1, ITEMS + 1) if i not in skip])
    rng.shuffle(ids)
    angle = 2 * np.pi * ids / ITEMS
    write_item_table(folder / "t.parquet", ids, np.stack([np.cos(angle), np.sin(angle)], 1) * 50 + 3)
    return folder / "t.parquet"


def test_a_frozen_table_with_an_adapter_learns_the_pattern(data, tmp_path):
    run = make_run(system={"items": {"table": "t", "adapter": [32]}}, epochs=40, patience=100)
    table = make_table(tmp_path, skip=(7, 8))
    model = train(run, data, tmp_path, table)
    assert judge(run, data, model, table)["Hit@5"] > 0.7
    assert not any("table" in name for name in read_tensors(model))


def test_the_adapter_over_all_items_equals_the_adapter_at_each_position(data, tmp_path):
    torch.manual_seed(0)
    run = make_run(system={"items": {"table": "t", "id_residual": True}})
    model = SequentialRecommender.build(
        run, reads(make_table(tmp_path, skip=(3,))), np.ones(ITEMS + 1, np.int64)
    ).double()
    ids = torch.randint(1, ITEMS + 1, (5, 6))
    weights = torch.randn(5, 6, 16, dtype=torch.float64)
    encoder = model.items
    once = (torch.nn.functional.embedding(ids, encoder()) * weights).sum()
    gradients = torch.autograd.grad(once, list(encoder.parameters()))
    rows = torch.where(encoder.present()[ids][..., None], encoder.adapter(encoder.table[ids]), encoder.absent)
    each = ((rows + encoder.residual[ids]) * weights).sum()
    torch.testing.assert_close(once, each)
    torch.testing.assert_close(gradients, torch.autograd.grad(each, list(encoder.parameters())))


def test_a_model_of_another_catalogue_is_refused(data, tmp_path):
    run = make_run(system={"recommender": "popular"})
    model = train(run, data, tmp_path)
    path = model.with_suffix(".json")
    path.write_text(path.read_text().replace(f'"items": {ITEMS}', '"items": 7'))
    with pytest.raises(ArtifactError, match="trained on 7 items, the dataset has 30"):
        judge(run, data, model)


def test_a_loss_that_explodes_says_what_to_lower(data, tmp_path):
    run = make_run(learning_rate=1e9, gradient_clip=None, epochs=5)
    with pytest.raises(TrainingError, match=r"training\.learning_rate"):
        train(run, data, tmp_path)


def test_a_table_with_nan_names_the_item(data, tmp_path):
    vectors = np.ones((ITEMS, 2), np.float32)
    vectors[4, 1] = np.nan
    write_item_table(tmp_path / "t.parquet", np.arange(1, ITEMS + 1), vectors)
    run = make_run(system={"items": {"table": "t"}})
    with pytest.raises(ArtifactError, match="item 5 holds NaN"):
        train(run, data, tmp_path, tmp_path / "t.parquet")


def test_cuda_without_a_gpu_says_so(data, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ValueError, match=r"training\.device: cuda"):
        train(make_run(device="cuda"), data, tmp_path)


def test_bfloat16_trains(data, tmp_path):
    run = make_run(precision="bfloat16", epochs=15, patience=100)
    assert judge(run, data, train(run, data, tmp_path))["Hit@5"] > 0.6


def test_trackers_are_told_of_the_curve(data, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    run = make_run(trackers=["tensorboard"], epochs=1)
    told = train(run, data, tmp_path).read_bytes()
    (events,) = tmp_path.glob(f"tracking/tensorboard/{run.system}/{run.recommender}/seed-{run.seed}/events*")
    assert b"NDCG@10" in events.read_bytes()
    silent = train(make_run(epochs=1), data, tmp_path / "silent")
    assert silent.read_bytes() == told, "no number depends on it"


assert os.environ.get("OMP_NUM_THREADS")  # set by tests/conftest.py before torch is loaded
