"""A network that learns from a finished run: loss and soft targets by hand, no leak, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from asking import START, ask
from dealt_out import dealt_out, with_items
from pattern import ITEMS
from stopped_training import stopped_after
from torch import Tensor

import tessera.recommenders.train
from forked_processes import run_processes
from tessera.artifacts.files import read_json
from tessera.artifacts.models import read_tensors
from tessera.artifacts.tables import ArtifactError
from tessera.data.dataset import load_dataset
from tessera.evaluation.histories import Histories
from tessera.evaluation.judge import validation_metrics
from tessera.plan.graph import Noun, Plan
from tessera.plan.jobs import Jobs
from tessera.recommenders.evaluate import load_scorer
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.soft_targets import SoftTargets, TaughtBatches, read_teacher, soft_targets
from tessera.recommenders.systems.base import recommender, training_histories
from tessera.recommenders.systems.distilled import Distilled
from tessera.recommenders.train import launch, train_run, validation_settings
from tessera.settings.base import ConfigError
from tessera.settings.config import load
from tessera.settings.runs import Run
from tessera.training.batches import PrefixBatches
from tessera.training.machine import seed_step

LENGTH = 12
STUDENT: dict[str, Any] = {"recommender": "distilled", "teacher": "ids/gru4rec", "kept": 5}
EVERY_ITEM = torch.arange(1, ITEMS + 1)


def plan(system: dict[str, Any] | None = None, **sections: Any) -> Plan:
    """The plan of a student `s` and of what may teach it."""
    shape: dict[str, Any] = {"dim": 16, "dropout": 0.1, "max_length": LENGTH}
    config = {
        "datasets": {"x": {"source": "bazaar"}},
        "backbones": {"short": {"kind": "sasrec", **shape, "max_length": 3}, **dict.fromkeys(
            ("sasrec", "gru4rec", "bert4rec", "hstu"), shape)},
        "tables": {"t": {"recipe": "vectors", "path": "t.npy", "made_from": ["text"]}},
        "semantic_ids": {"c": {"quantizer": "rq_kmeans", "tables": "t"}},
        "systems": {
            "ids": {"items": "ids", "backbones": ["short", "sasrec", "gru4rec"], "training": {"epochs": 2}},
            "text": {"items": {"table": "t", "adapter": [8]}},
            "both": {"recommender": "ensemble", "members": ["ids/gru4rec", "ids/short"], "weights": [1, 2]},
            "codes": {"items": {"semantic_ids": "c"}},
            "s": system or STUDENT,
            **sections.pop("systems", {}),
        },
        "training": {"epochs": 2, "batch_tokens": 200, "learning_rate": 0.01, "device": "cpu",
                     **sections.pop("training", {})},
        "experiment": {"datasets": ["x"], "systems": ["s"], "backbones": ["sasrec"], "seeds": [1]},
        **sections,
    }  # fmt: skip
    return Plan(load(config))


def student(system: dict[str, Any] | None = None, **sections: Any) -> Run:
    (run,) = plan(system, **sections).runs
    return run


def trained(run: Run, data: Path, folder: Path, inputs: RunInputs | None = None) -> Path:
    output = folder / run.path / "model.safetensors"
    train_run(run, data, inputs or RunInputs(), output, folder / "state")
    return output


@pytest.fixture(scope="module")
def teacher(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the teacher."""
    return trained(plan().trained["ids/gru4rec/seed-1"], data, tmp_path_factory.mktemp("teacher"))


def taught_by(weights: Path) -> RunInputs:
    return RunInputs(teacher=str(weights))


# ---------------------------------------------------------------- what the teacher says


@pytest.mark.parametrize(("temperature", "kept"), [(1.0, 5), (0.5, ITEMS), (2.0, 1000)])
def test_soft_targets_are_the_teachers_probabilities(temperature: float, kept: int, teacher: Path, data: Path) -> None:
    """Every training interaction but a user's first, by asking for each by itself, in float64."""
    dataset = load_dataset(data)
    histories, scorer = training_histories(dataset), read_teacher(teacher, RunInputs(), dataset.train_counts)
    soft = soft_targets(scorer, histories, ITEMS, kept, temperature, EVERY_ITEM)
    assert soft.items.shape == soft.shares.shape == (len(histories.items), min(kept, ITEMS))
    first = np.zeros(len(histories.items), bool)
    first[histories.offsets[:-1][np.diff(histories.offsets) > 0]] = True
    assert not soft.items[first].any()
    assert not soft.shares[first].any()
    whole = kept >= ITEMS
    np.testing.assert_allclose(soft.rest.sum(), 0 if whole else 1, rtol=1e-5)
    if whole:
        np.testing.assert_allclose(soft.shares[~first].sum(1), 1, rtol=1e-5)
    longest, rest = 0, np.zeros(ITEMS)
    for user in range(len(histories.offsets) - 1):
        start, end = histories.offsets[user], histories.offsets[user + 1]
        for row in range(start + 1, end):
            longest = max(longest, row - start)
            scores = ask(scorer, histories.items[None, max(start, row - LENGTH) : row])[0].double() / temperature
            wanted = scores.softmax(0).numpy()
            order = np.argsort(-wanted)[:kept]
            dense = np.zeros(ITEMS)
            dense[soft.items[row] - 1] = soft.shares[row]
            expected = np.zeros(ITEMS)
            expected[order] = wanted[order]
            np.testing.assert_allclose(dense, expected, atol=1e-5)
            rest += wanted - expected
    assert longest > LENGTH, "some history is longer than what the teacher reads"
    if not whole:
        np.testing.assert_allclose(soft.rest[1:], rest / rest.sum(), rtol=1e-4)


def test_items_that_the_loss_leaves_out_are_not_likely(teacher: Path, data: Path) -> None:
    dataset = load_dataset(data)
    scorer = read_teacher(teacher, RunInputs(), dataset.train_counts)
    known = torch.tensor([1, 2, 3, 9])
    soft = soft_targets(scorer, training_histories(dataset), ITEMS, 3, 1.0, known)
    assert set(np.unique(soft.items)) <= {0, 1, 2, 3, 9}
    assert set(soft.rest.nonzero()[0].tolist()) <= {1, 2, 3, 9}
    everything = soft_targets(scorer, training_histories(dataset), ITEMS, ITEMS, 1.0, EVERY_ITEM)
    row = int(np.flatnonzero(soft.shares[:, 0] > 0)[0])
    whole = dict(zip(everything.items[row].tolist(), everything.shares[row].tolist(), strict=True))
    among = {item: whole[item] for item in soft.items[row].tolist()}
    known_mass = sum(whole[item] for item in known.tolist())
    assert soft.shares[row].tolist() == pytest.approx([value / known_mass for value in among.values()], rel=1e-4)


def test_a_teacher_that_is_sure_leaves_nothing(teacher: Path, data: Path) -> None:
    """So sharp that no other item has a probability: numbers still."""
    dataset = load_dataset(data)
    scorer = read_teacher(teacher, RunInputs(), dataset.train_counts)
    soft = soft_targets(scorer, training_histories(dataset), ITEMS, 5, 1e-6, EVERY_ITEM)
    assert not soft.rest.any()
    assert np.isfinite(soft.shares).all()


def rows_as_shares(data: Path) -> SoftTargets:
    """Soft targets that name their own row: the likely item is the target itself, and the share is the row's number."""
    items = training_histories(load_dataset(data)).items
    shares = np.arange(len(items), dtype=np.float32)[:, None]
    return SoftTargets(items[:, None].astype(np.int32), shares, np.zeros(ITEMS + 1, np.float32))


@pytest.mark.parametrize(
    ("system", "backbones"),
    [({}, {}), ({"samples": "prefixes"}, {}), ({"backbones": ["gru4rec"]}, {"gru4rec": {"targets": "last"}})],
    ids=["windows", "prefixes", "last"],
)
def test_each_target_has_its_own_row(
    system: dict[str, Any], backbones: dict[str, Any], data: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the batches are, what stands beside a target is of this target; over an epoch each is there once."""
    shape = {"dim": 16, "max_length": LENGTH}
    given = {name: {**shape, **backbones.get(name, {})} for name in ("sasrec", "gru4rec", "short", "bert4rec", "hstu")}
    given["short"]["kind"] = "sasrec"
    run = student({**STUDENT, **system}, backbones=given)
    dataset = load_dataset(data)
    model = recommender(run).build(run, taught_by(teacher), dataset.train_counts)
    assert isinstance(model, Distilled)
    monkeypatch.setattr("tessera.recommenders.systems.distilled.soft_targets", lambda *_: rows_as_shares(data))
    histories = training_histories(dataset)
    batches = model.batches(run, histories)
    assert isinstance(batches, TaughtBatches)
    met = list[int]()
    for numbers in batches.plan(1, 0):
        batch = batches.batch(numbers)
        _, targets, _ = model._examples(batch, model.items())
        assert batch.likely is not None
        assert batch.shares is not None
        assert batch.likely[:, 0].tolist() == targets.tolist()
        met += batch.shares[:, 0].long().tolist()
    begins = histories.offsets[:-1][np.diff(histories.offsets) > 0]
    if system.get("backbones") is None:
        assert sorted(met) == sorted(set(range(len(histories.items))) - set(begins.tolist()))
    assert len(met) == len(set(met)) == batches.targets
    empty = batches.batch(np.zeros(0, np.int64))
    assert empty.likely is not None
    assert len(empty.likely) == 0
    assert float(torch.as_tensor(model.losses(empty, START)["recommendation"].value).detach()) == 0


# ---------------------------------------------------------------- the loss


def by_hand(states: Tensor, scored: Tensor, targets: Tensor, dense: Tensor, weight: float) -> Tensor:
    """Cross-entropy with (1 - w) target + w teacher over the catalogue, plainly."""
    wanted = weight * dense
    wanted[torch.arange(len(targets)), targets - 1] += 1 - weight
    return -(wanted * (states @ scored[1:].T).log_softmax(1)).sum()


@pytest.mark.parametrize("weight", [0.3, 1.0])
@pytest.mark.parametrize("scores", ["product", "cosine"])
def test_the_loss_is_the_cross_entropy_with_both(scores: str, weight: float, teacher: Path, data: Path) -> None:
    """Value and gradients in float64."""
    run = student({**STUDENT, "scores": scores, "weight": weight, "kept": 4}, backbones=WITHOUT_DROPOUT)
    dataset = load_dataset(data)
    seed_step(3)
    model = recommender(run).build(run, taught_by(teacher), dataset.train_counts).double()
    assert isinstance(model, Distilled)
    batches = model.batches(run, training_histories(dataset))
    batch = batches.batch(batches.plan(1, 0)[0])
    losses = model.losses(batch, START)
    value = losses["recommendation"].value
    assert isinstance(value, Tensor)
    value.backward()
    got = {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}
    model.zero_grad()
    vectors = model.items()
    states, targets, _ = model._examples(batch, vectors)
    dense = torch.zeros(len(targets), ITEMS, dtype=torch.float64)
    dense.scatter_add_(1, batch.likely.long() - 1, batch.shares.double())
    assert model.rest is not None
    dense += (1 - batch.shares.double().sum(1, keepdim=True)) * model.rest[1:]
    torch.testing.assert_close(dense.sum(1), torch.ones(len(targets), dtype=torch.float64), rtol=1e-5, atol=1e-5)
    compared, scored = model._compared(states), model._scored(vectors)
    wanted = by_hand(compared, scored, targets, dense, weight)
    assert float(value.detach()) == pytest.approx(float(wanted.detach()), rel=1e-6)
    hard = by_hand(compared, scored, targets, torch.zeros_like(dense), 0.0)
    assert float(losses["hard"].value) == pytest.approx(float(hard), rel=1e-6)
    wanted.backward()
    expected = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
    assert got.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-4, atol=1e-5)  # shares are float32


WITHOUT_DROPOUT: dict[str, Any] = {
    name: {"kind": kind, "dim": 16, "dropout": 0.0, "max_length": LENGTH}
    for name, kind in (("short", "sasrec"), ("sasrec", "sasrec"), ("gru4rec", "gru4rec"), ("bert4rec", "bert4rec"),
                       ("hstu", "hstu"))
}  # fmt: skip


# ---------------------------------------------------------------- training as a whole


def test_it_comes_closer_to_its_teacher_than_without(teacher: Path, data: Path, tmp_path: Path) -> None:
    """The divergence from the teacher on validation histories, after the same steps."""
    dataset = load_dataset(data)
    asked = read_teacher(teacher, RunInputs(), dataset.train_counts)
    histories = training_histories(dataset)
    rows = PrefixBatches(histories.offsets, histories.items, LENGTH, 4000).batch(np.arange(50))
    wanted = asked(Histories(rows.items, rows.lengths, rows.users)).log_softmax(1)
    far = {}
    for name, system in (("plain", {"items": "ids"}), ("taught", {**STUDENT, "weight": 1.0, "kept": ITEMS})):
        run = student(system, training={"epochs": 6})
        weights = trained(run, data, tmp_path / name, taught_by(teacher) if name == "taught" else None)
        scorer = load_scorer(weights, run, dataset.train_counts, RunInputs())  # the teacher is not needed any more
        said = scorer(Histories(rows.items, rows.lengths, rows.users)).log_softmax(1)
        far[name] = float((wanted.exp() * (wanted - said)).sum(1).mean())
    assert far["taught"] < 0.5 * far["plain"]


def test_weights_are_those_of_the_system_without_a_teacher(teacher: Path, data: Path, tmp_path: Path) -> None:
    """By name and shape, and by where they begin: nothing of the teacher is kept, and its scores are as the judge's."""
    dataset = load_dataset(data)
    begun = []
    for system in ({"items": "ids"}, STUDENT):
        run = student(system)
        seed_step(run.seed)
        begun.append(recommender(run).build(run, taught_by(teacher), dataset.train_counts).state_dict())
    assert begun[0].keys() == begun[1].keys()
    for name, value in begun[0].items():
        assert torch.equal(value, begun[1][name]), name
    run = student()
    weights = trained(run, data, tmp_path, taught_by(teacher))
    assert read_tensors(weights).keys() == begun[0].keys()
    model = recommender(run).build(run, RunInputs(), dataset.train_counts)
    model.load_state_dict(read_tensors(weights))
    items = len(dataset.train_counts) - 1
    scorer = load_scorer(weights, run, dataset.train_counts, RunInputs())
    judged = validation_metrics(scorer, dataset.cases("valid"), validation_settings(run, items), items)
    assert judged["NDCG@10"] == pytest.approx(read_json(weights.with_suffix(".json"))["validation"])


def test_nothing_that_is_held_out_is_asked_of_the_teacher(teacher: Path, data: Path, tmp_path: Path) -> None:
    other = with_items(data, tmp_path / "other", dealt_out)
    run = student(training={"epochs": 1})  # whose end no validation decides
    one, two = (
        read_tensors(trained(run, folder, tmp_path / name, taught_by(teacher)))
        for name, folder in (("one", data), ("two", other))
    )
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.equal(two[name], value), name
    asked = [
        soft_targets(
            read_teacher(teacher, RunInputs(), load_dataset(folder).train_counts),
            training_histories(load_dataset(folder)), ITEMS, 5, 1.0, EVERY_ITEM,
        )
        for folder in (data, other)
    ]  # fmt: skip
    assert asked[0].items.tobytes() == asked[1].items.tobytes()
    assert asked[0].shares.tobytes() == asked[1].shares.tobytes()


@pytest.mark.parametrize("after", [1, 9])
def test_a_stop_changes_nothing(after: int, teacher: Path, data: Path, tmp_path: Path) -> None:
    run = student(training={"checkpoint_seconds": 0.0})
    expected = trained(run, data, tmp_path / "whole", taught_by(teacher))
    with stopped_after(after):
        trained(run, data, tmp_path / "stopped", taught_by(teacher))
    again = trained(run, data, tmp_path / "stopped", taught_by(teacher))
    assert again.read_bytes() == expected.read_bytes()


def test_two_processes_train_what_one_does(
    teacher: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has its share of a step's rows, and of what the teacher says of them."""
    monkeypatch.setattr(tessera.recommenders.train, "run_processes", run_processes)
    weights = []
    for processes in (1, 2):
        run = student(training={"processes": processes}, backbones=WITHOUT_DROPOUT)
        output = tmp_path / str(processes) / "model.safetensors"
        launch(run, data, taught_by(teacher), output, tmp_path / f"state-{processes}", "", None)
        weights.append(read_tensors(output))
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-4)


def test_another_teacher_is_another_training(teacher: Path, data: Path, tmp_path: Path) -> None:
    """A checkpoint of one is not gone on with under another."""
    run = student(training={"checkpoint_seconds": 0.0})
    other = trained(plan().trained["ids/gru4rec/seed-1"].model_copy(update={"seed": 5}), data, tmp_path / "other")
    with stopped_after(5):
        trained(run, data, tmp_path / "x", taught_by(teacher))
    again = trained(run, data, tmp_path / "x", taught_by(other))
    expected = trained(run, data, tmp_path / "y", taught_by(other))
    assert again.read_bytes() == expected.read_bytes()


def test_an_ensemble_teaches_a_system_beside_a_markov_chain(data: Path, tmp_path: Path) -> None:
    """As the workflow names the files of each."""
    mixture = {"recommender": "markov_mixture", "base": {**STUDENT, "teacher": "both"}, "weight": 0.3}
    made = plan(mixture)
    jobs = Jobs(made)
    root = "results/experiment/x/"
    for noun in made.closure([Noun("run", made.runs[0].path)]):
        files = jobs.inputs(noun, "x")
        below = {key: str(tmp_path / str(file).removeprefix(root)) for key, file in files.items() if key == "teacher"}
        members = [str(tmp_path / file.removeprefix(root)) for file in files.get("members", [])]
        inputs = RunInputs(teacher=below.get("teacher"), members=members)
        output = tmp_path / str(jobs.file(noun, "x")).removeprefix(root)
        train_run(made.trained[noun.name], data, inputs, output, tmp_path / "state")
    tensors = read_tensors(tmp_path / "runs/s/sasrec/seed-1/model.safetensors")
    assert float(tensors["weight"]) == pytest.approx(0.3)
    plain = student({"items": "ids"})
    own = recommender(plain).build(plain, RunInputs(), load_dataset(data).train_counts).state_dict()
    assert {name.removeprefix("base.") for name in tensors if name.startswith("base.")} == own.keys()


# ---------------------------------------------------------------- what the workflow reads


def test_the_teacher_is_read_by_training_alone() -> None:
    made = plan()
    jobs, noun = Jobs(made), Noun("run", "s/sasrec/seed-1")
    file = jobs.file(Noun("run", "ids/gru4rec/seed-1"), "x")
    assert jobs.inputs(noun, "x")["teacher"] == file
    assert "teacher" not in jobs.inputs(noun, "x", judged=True)
    assert made.runs[0].remarks == ["taught by ids"]
    with_seed = plan({**STUDENT, "teacher": {"system": "ids", "backbone": "sasrec", "seed": 7}})
    assert Jobs(with_seed).inputs(noun, "x")["teacher"] == jobs.file(Noun("run", "ids/sasrec/seed-7"), "x")


def test_a_final_run_learns_from_a_final_teacher() -> None:
    experiment = {"datasets": ["x"], "systems": ["s"], "backbones": ["sasrec"], "seeds": [1], "final": ["s"]}
    jobs, noun = Jobs(plan(experiment=experiment)), Noun("run", "s/sasrec/seed-1")
    assert jobs.inputs(noun, "x-final")["teacher"] == jobs.file(Noun("run", "ids/gru4rec/seed-1"), "x-final")


def test_tables_of_the_teacher_are_read_too() -> None:
    assert student({**STUDENT, "teacher": "text"}).tables == ["t"]
    both = {"recommender": "ensemble", "members": ["text", "ids/gru4rec"]}
    assert student({**STUDENT, "teacher": "both"}, systems={"both": both}).tables == ["t"]
    assert student().tables == []


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("system", "said"),
    [
        ({"teacher": "markov"}, "is not trained"),
        ({"teacher": "nobody"}, "nobody"),
        ({"teacher": "ids"}, "runs under short, sasrec, gru4rec; name one: ids/short"),
        ({"teacher": "ids/bert4rec"}, "add 'bert4rec' to its `backbones`"),
        ({"teacher": "s"}, "learns from this system itself"),
        ({"teacher": "round"}, "learns from this system itself"),
        ({"teacher": "codes"}, "reads semantic IDs (c)"),
        ({"loss": {"kind": "bce"}}, "a teacher needs cross_entropy, over all"),
        ({"backbones": ["bert4rec"]}, "looks both ways"),
        ({"weight": 0.0}, "weight"),
        ({"items": {"table": "t", "align": {"system": "ids", "backbone": "sasrec"}}}, "beside the teacher"),
    ],
)  # fmt: skip
def test_what_cannot_teach_is_told(system: dict[str, Any], said: str) -> None:
    others = {
        "markov": {"recommender": "markov"},
        "round": {"recommender": "ensemble", "members": ["s", "ids/sasrec"]},
    }
    with pytest.raises(ConfigError, match=said.replace("(", r"\(").replace(")", r"\)")) as caught:
        plan({**STUDENT, **system}, systems=others)
    assert "systems.s" in str(caught.value)


def test_students_of_each_other_are_told() -> None:
    mixture = {"recommender": "markov_mixture", "base": {**STUDENT, "teacher": "t"}}
    with pytest.raises(ConfigError, match="learns from this system itself"):
        plan(mixture, systems={"t": {**STUDENT, "teacher": "s"}})


def test_a_teacher_of_another_catalogue_is_told(teacher: Path, data: Path, tmp_path: Path) -> None:
    run = student()
    counts = np.ones(ITEMS + 3, np.int64)
    model = recommender(run).build(run, taught_by(teacher), counts)
    with pytest.raises(ArtifactError, match=f"trained on {ITEMS} items, the dataset has {ITEMS + 2}"):
        model.batches(run, training_histories(load_dataset(data)))
    with pytest.raises(ValueError, match="is taught by 'ids', but its weights were not given"):
        trained(run, data, tmp_path)
