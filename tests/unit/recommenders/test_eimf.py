"""EIMF-style learning: the best of K vectors, matching and both tasks against loops, scores of behaviour, the run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from asking import CPU, START, ask, scorer
from pattern import ITEMS, make_run, write_dataset, write_interests_of
from stopped_training import stopped_after
from torch import Tensor
from torch.nn import functional as F

from tessera.artifacts.interests import Interest, write_interests
from tessera.artifacts.models import read_tensors
from tessera.artifacts.tables import ArtifactError, write_item_table
from tessera.data.dataset import load_dataset
from tessera.evaluation.histories import Histories
from tessera.plan.graph import Plan
from tessera.recommenders.evaluate import evaluate_run
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.multi_interest import nearest
from tessera.recommenders.semantic_module import SemanticModule, alignment_loss, match
from tessera.recommenders.systems.base import training_histories
from tessera.recommenders.systems.eimf import EIMF
from tessera.recommenders.train import train_run
from tessera.settings.base import ConfigError
from tessera.settings.config import load
from tessera.settings.evaluation import Evaluation
from tessera.settings.losses.cross_entropy import CrossEntropy
from tessera.settings.runs import Run
from tessera.training.machine import seed_step
from tessera.training.phases import Position

SMALL: dict[str, Any] = {
    "recommender": "eimf", "interests": "w", "dim": 16, "inner_dim": 12, "vectors": 3, "max_length": 12,
    "dropout": 0.1, "adapter": [8], "typical": 9,
}  # fmt: skip
ALONE = {"interests": None}
NETWORKS = ["attention", "capsules"]
HISTORIES = np.array([[3, 1, 4, 1, 5, 9], [2, 7, 20, 0, 0, 0], [8, 0, 0, 0, 0, 0]])
LENGTHS = np.array([6, 3, 1])
TYPICAL = list(range(2, 80, 3))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> RunInputs:
    folder = tmp_path_factory.mktemp("eimf")
    rows = np.random.default_rng(1).normal(size=(ITEMS, 6)).astype(np.float32)
    write_item_table(folder / "t.parquet", np.arange(1, ITEMS + 1), rows)
    write_interests_of(folder / "w.parquet", TYPICAL)
    return RunInputs(tables={name: str(folder / f"{name}.parquet") for name in ("t", "w")})


def run_of(training: dict[str, Any] | None = None, **settings: Any) -> Run:
    unread = {"inner_dim"} if settings.get("network") == "capsules" else set()
    unread |= {"adapter", "typical"} if settings.get("interests", "w") is None else set()
    small = {key: value for key, value in SMALL.items() if key not in unread}
    return make_run(system={**small, **settings}, **(training or {}))


def build(inputs: RunInputs, data: Path | None = None, **settings: Any) -> EIMF:
    run = run_of(**settings)
    seed_step(1)
    model = EIMF.build(run, inputs, np.arange(ITEMS + 1))
    with torch.no_grad():  # vectors of a user that differ
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    if data is not None:
        model.program(run, training_histories(load_dataset(data)), None)
    return model.eval()


def trained(run: Run, data: Path, inputs: RunInputs, folder: Path) -> Path:
    output = folder / "model.safetensors"
    train_run(run, data, inputs, output, folder / "state")
    return output


def rows_of(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.with_name("history.jsonl").read_text().splitlines()]


# ---------------------------------------------------------------- scores


@pytest.mark.parametrize("network", NETWORKS)
def test_the_best_of_the_vectors_scores_the_whole_catalogue(network: str, inputs: RunInputs) -> None:
    model = build(inputs, network=network)
    scores = ask(scorer(model), HISTORIES, LENGTHS)
    assert scores.shape == (3, ITEMS)
    catalogue = model.catalogue()
    users = model.users(Histories.of(HISTORIES, LENGTHS), catalogue)
    assert users.shape == (3, 3, 16)
    items = catalogue.scored.detach().numpy()
    wanted = np.array([[max(float(v @ e) for v in own) for e in items[1:]] for own in users.detach().numpy()])
    np.testing.assert_allclose(scores, wanted, rtol=1e-4, atol=1e-6)
    best = [np.argsort(-row, kind="stable")[:5].tolist() for row in wanted]
    assert scores.topk(5).indices.tolist() == best
    chosen = {int((own @ items[1:].T).argmax() // ITEMS) for own in users.detach().numpy()}
    assert len(chosen) > 1, "another vector is best for another user"


def loss_of_prefixes(model: EIMF, loss_over: str, cold: Sequence[int] | np.ndarray = ()) -> tuple[float, int]:
    """The loss of each prefix of the histories by itself, `cold` items left out, and how many there are."""
    catalogue = model.catalogue()
    total, count = 0.0, 0
    for row in HISTORIES.tolist():
        row = [item for item in row if item]
        for length in range(1, len(row)):
            asked = Histories.of(np.array([row[:length]]))
            scores = model.score(asked, catalogue)[0]
            if loss_over == "nearest":
                state = nearest(model.users(asked, catalogue), catalogue.scored[row[length]][None])[0]
                scores = catalogue.scored[1:] @ state
            scores = scores.detach().clone()
            scores[torch.as_tensor(cold, dtype=torch.int64) - 1] = -torch.inf
            total -= float(scores.log_softmax(0)[row[length] - 1])
            count += 1
    return total, count


@pytest.mark.parametrize("loss_over", ["scores", "nearest"])
@pytest.mark.parametrize("network", NETWORKS)
def test_what_is_trained_is_what_is_scored(network: str, loss_over: str, inputs: RunInputs) -> None:
    """The loss of a batch is that of each prefix alone: of its scores, or by the vector nearest to its target."""
    model = build(inputs, network=network, loss_over=loss_over, **ALONE)
    loss = model.losses(Histories.of(HISTORIES), START)["recommendation"]
    total, count = loss_of_prefixes(model, loss_over)
    assert isinstance(loss.value, Tensor)
    assert float(loss.value.detach()) == pytest.approx(total, rel=1e-4)
    assert loss.targets == count


@pytest.mark.parametrize("loss_over", ["scores", "nearest"])
def test_items_that_nobody_met_may_be_left_out_of_the_loss(loss_over: str, inputs: RunInputs) -> None:
    """The loss is that over the others, and what is left out gets no gradient."""
    met = np.unique(HISTORIES)[1:]
    cold = np.setdiff1d(np.arange(1, ITEMS + 1), met)
    popularity = np.bincount(met, minlength=ITEMS + 1)
    run = run_of(loss_over=loss_over, **ALONE).model_copy(update={"loss": CrossEntropy(cold_items="left_out")})
    seed_step(1)
    model = EIMF.build(run, inputs, popularity).eval()
    loss = model.losses(Histories.of(HISTORIES), START)["recommendation"]
    assert isinstance(loss.value, Tensor)
    loss.value.backward()
    assert model.items.weight.grad is not None
    assert not model.items.weight.grad[cold].any()
    total, _ = loss_of_prefixes(model, loss_over, cold)
    assert float(loss.value.detach()) == pytest.approx(total, rel=1e-4)


def test_what_is_written_moves_no_item_that_is_left_out(data: Path, inputs: RunInputs) -> None:
    """The next item of a typical user is predicted among the others, as if there were no more."""
    cold = [1, ITEMS]
    histories = training_histories(load_dataset(data))
    histories = replace(histories, items=np.where(np.isin(histories.items, cold), 2, histories.items))
    popularity = np.bincount(histories.items, minlength=ITEMS + 1)
    run = run_of(matching=None).model_copy(update={"loss": CrossEntropy(cold_items="left_out")})
    seed_step(1)
    model = EIMF.build(run, inputs, popularity).eval()
    model.program(run, histories, None)
    losses = model.losses(Histories.of(HISTORIES.clip(2, ITEMS - 1)), START)
    value = losses["semantic"].value
    assert isinstance(value, Tensor)
    value.backward()
    assert model.items.weight.grad is not None
    assert not model.items.weight.grad[cold].any()

    semantic, catalogue = model.semantic, model.catalogue()
    assert semantic is not None
    met = semantic.draw(START, CPU)
    assert met.histories.targets is not None
    only = torch.cat([catalogue.scored[:1], catalogue.scored[2:ITEMS]])  # the padding, and all that are met
    placed = met._replace(histories=replace(met.histories, targets=met.histories.targets - 1))
    expected = semantic.losses(placed, model.users(met.histories, catalogue), only)["semantic"].value
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("said", ["left_out", "negatives"])
def test_the_loss_of_the_experiment_says_what_becomes_of_cold_items(said: str, tmp_path: Path) -> None:
    plan = Plan(
        load(
            {
                "datasets": {"shop": {"source": "bazaar"}},
                "loss": {"kind": "bpr", "cold_items": said},
                "systems": {"eimf": {"recommender": "eimf"}},
                "experiment": {"datasets": ["shop"], "systems": ["eimf", "id"]},
            }
        )
    )
    assert {(run.system, run.loss.kind, run.loss.cold_items) for run in plan.runs} == {
        ("eimf", "cross_entropy", said), ("id", "bpr", said),
    }  # fmt: skip


@pytest.mark.parametrize("network", NETWORKS)
def test_a_history_is_read_alike_beside_longer_ones(network: str, inputs: RunInputs) -> None:
    model = scorer(build(inputs, network=network))
    together = ask(model, HISTORIES, LENGTHS)
    for row, length, wanted in zip(HISTORIES, LENGTHS, together, strict=True):
        torch.testing.assert_close(ask(model, row[None, :length])[0], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("network", NETWORKS)
def test_more_vectors_than_items_of_a_history(network: str, data: Path, inputs: RunInputs, tmp_path: Path) -> None:
    run = run_of({"epochs": 1}, network=network, vectors=9)
    model = build(inputs, network=network, vectors=9)
    for history in ([[7]], [[7, 8]], [[0]]):
        assert torch.isfinite(ask(scorer(model), np.array(history))).all()
    output = trained(run, data, inputs, tmp_path)
    assert all(bool(torch.isfinite(value).all()) for value in read_tensors(output).values())


# ---------------------------------------------------------------- behaviour alone


@pytest.mark.parametrize("mode", ["item_from_semantics", "semantics_from_behaviour"])
def test_scores_are_the_same_without_the_semantic_module(
    mode: str, data: Path, inputs: RunInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of({"epochs": 2}, prediction={"mode": mode})
    output = trained(run, data, inputs, tmp_path)
    model = EIMF.build(run, inputs, np.arange(ITEMS + 1))
    model.load_state_dict(read_tensors(output))
    with_it = ask(scorer(model), HISTORIES, LENGTHS)

    def asked(*_: Any) -> None:
        raise AssertionError("the semantic module is asked")

    for name in ("draw", "losses", "forward"):
        monkeypatch.setattr(SemanticModule, name, asked, raising=False)
    assert torch.equal(ask(scorer(model), HISTORIES, LENGTHS), with_it)
    model.semantic = None
    assert torch.equal(ask(scorer(model), HISTORIES, LENGTHS), with_it)
    # a system that never had one, with the same weights of behaviour
    bare = EIMF.build(run_of(**ALONE), RunInputs(), np.arange(ITEMS + 1))
    own = {name: value for name, value in read_tensors(output).items() if not name.startswith("semantic.")}
    bare.load_state_dict(own)
    assert torch.equal(ask(scorer(bare), HISTORIES, LENGTHS), with_it)


def test_what_is_written_teaches_behaviour(data: Path, inputs: RunInputs) -> None:
    model = build(inputs, data).train()
    for name in ("alignment", "semantic"):
        model.zero_grad()
        term = model.losses(Histories.of(HISTORIES), START)[name]
        assert isinstance(term.value, Tensor)
        term.value.backward()
        moved = {part for part, value in model.named_parameters() if value.grad is not None and value.grad.any()}
        assert {"items.weight", "network.attend.weight", "network.readout.weight"} <= moved
        assert {part for part in moved if part.startswith("semantic")}


# ---------------------------------------------------------------- matching and the two tasks


@pytest.mark.parametrize(("number", "most"), [(3, 3), (4, 2), (2, 4), (1, 1)])
def test_matches_are_the_best_of_all_that_there_are(number: int, most: int) -> None:
    torch.manual_seed(number)
    vectors, written = torch.randn(5, number, 7), torch.randn(5, most, 7)
    present = torch.arange(most) < torch.tensor([1, most, 1, most, max(1, most - 1)])[:, None]
    pairs = match(vectors, written, present)
    for user in range(5):
        cosines = F.cosine_similarity(vectors[user][:, None], written[user][None], dim=2).numpy()
        known = int(present[user].sum())
        rows, columns = (number, known) if number >= known else (known, number)
        square = cosines[:, :known] if number >= known else cosines[:, :known].T
        best = max(sum(square[p, c] for c, p in enumerate(each)) for each in permutations(range(rows), columns))
        mine = pairs.users == user
        got = cosines[pairs.vectors[mine], pairs.written[mine]].sum()
        assert got == pytest.approx(best, abs=1e-5)
        assert mine.sum() == min(number, known)
        for side in (pairs.vectors[mine], pairs.written[mine]):
            assert len(set(side.tolist())) == len(side), "one to one"
        assert set(pairs.written[mine].tolist()) <= set(range(known))


def test_vectors_that_are_no_numbers_make_a_loss_that_is_none() -> None:
    """The engine tells what to do, and a search takes the trial for one that failed."""
    vectors, written = torch.full((2, 3, 5), torch.nan), torch.randn(2, 2, 5)
    assert alignment_loss(vectors, written, torch.ones(2, 2, dtype=torch.bool), 0.2).isnan()


def test_the_alignment_is_the_contrast_with_what_others_like() -> None:
    torch.manual_seed(0)
    vectors, written = torch.randn(4, 3, 5), torch.randn(4, 2, 5)
    present = torch.tensor([[True, True], [True, False], [True, True], [True, False]])
    loss = alignment_loss(vectors, written, present, 0.2)
    pairs = match(vectors, written, present)
    total = 0.0
    for user in range(4):
        own = []
        for row in (pairs.users == user).nonzero()[:, 0].tolist():
            anchor = vectors[user, pairs.vectors[row]]

            def likeness(other: Tensor, anchor: Tensor = anchor) -> float:
                return float(torch.exp(F.cosine_similarity(anchor, other, dim=0) / 0.2))

            positive = likeness(written[user, pairs.written[row]])
            negatives = sum(
                likeness(written[other, place])
                for other in range(4) if other != user
                for place in range(2) if present[other, place]
            )  # fmt: skip
            own.append(-np.log(positive / (positive + negatives)))
        total += float(np.mean(own)) / 4
    assert float(loss) == pytest.approx(total, rel=1e-5)
    alone = alignment_loss(vectors[:1], written[:1], present[:1], 0.2)
    assert float(alone) == pytest.approx(0, abs=1e-6), "with nobody else there is nothing to tell apart"


def test_both_readings_of_the_prediction(data: Path, inputs: RunInputs) -> None:
    model = build(inputs, data)
    semantic = model.semantic
    assert semantic is not None
    met = semantic.draw(START, CPU)
    histories, catalogue = met.histories, model.catalogue()
    vectors = model.users(histories, catalogue)
    assert histories.targets is not None
    assert semantic.to_items is not None
    total = 0.0
    for user, target in enumerate(histories.targets.tolist()):
        mapped = semantic.to_items(met.written[user, met.present[user]])
        shares = (mapped @ vectors[user].mean(0) / 4).softmax(0)
        logits = catalogue.scored[1:] @ (shares[:, None] * mapped).sum(0)
        total -= float(logits.log_softmax(0)[target - 1].detach())
    terms = semantic.losses(met, vectors, catalogue.scored)
    assert float(torch.as_tensor(terms["semantic"].value).detach()) == pytest.approx(
        0.1 * total / len(histories), rel=1e-4
    )

    model = build(inputs, data, prediction={"mode": "semantics_from_behaviour", "weight": 0.5})
    semantic = model.semantic
    assert semantic is not None
    assert semantic.to_words is not None
    vectors = model.users(histories, model.catalogue())
    losses = [
        1 - F.cosine_similarity(
            semantic.to_words(vectors[user].mean(0)), met.written[user, met.present[user]].mean(0), dim=0
        )
        for user in range(len(histories))
    ]  # fmt: skip
    terms = semantic.losses(met, vectors, model.catalogue().scored)
    assert float(torch.as_tensor(terms["semantic"].value).detach()) == pytest.approx(
        0.5 * float(torch.stack(losses).mean().detach()), rel=1e-4
    )


def test_a_step_draws_typical_users_as_the_writer_knew_them(data: Path, inputs: RunInputs) -> None:
    semantic = build(inputs, data).semantic
    assert semantic is not None
    offsets, items = load_dataset(data).train_histories()
    steps = [semantic.draw(Position(0, step, step, 0.0, {}), CPU) for step in (0, 1)]
    assert steps[0].histories.users.tolist() != steps[1].histories.users.tolist()
    again = semantic.draw(Position(0, 1, 1, 0.0, {}), CPU)
    assert torch.equal(again.histories.items, steps[1].histories.items)
    for met in steps:
        assert len(met.histories) == SMALL["typical"]
        assert met.histories.targets is not None
        for row, user in enumerate(met.histories.users.tolist()):
            assert user in TYPICAL
            whole = items[offsets[user - 1] : offsets[user]].tolist()
            assert met.histories.targets[row] == whole[-1]
            read = met.histories.items[row, : met.histories.lengths[row]].tolist()
            assert read == whole[:-1][-SMALL["max_length"] :]
            assert int(met.present[row].sum()) == TYPICAL.index(user) % 3 + 1


# ---------------------------------------------------------------- training as a whole


@pytest.mark.parametrize("network", NETWORKS)
def test_it_learns_a_pattern_and_is_judged(network: str, data: Path, inputs: RunInputs, tmp_path: Path) -> None:
    run = run_of({"epochs": 12, "patience": 12, "learning_rate": 0.02}, network=network)
    output = trained(run, data, inputs, tmp_path)
    judged = evaluate_run(run, Evaluation(), output, data, inputs, None, tmp_path / "e", tmp_path / "m.json")
    assert judged["metrics"]["Hit@5"] > 0.4  # by chance a sixth
    told = json.loads((tmp_path / "m.json").read_text())["user_vectors"]
    assert all(len(user["vectors"]) == SMALL["vectors"] for user in told)
    assert sum(vector["recommended"] > 0 for vector in told[-1]["vectors"]) >= 1
    assert {"recommendation", "alignment", "semantic", "loss"} <= set(rows_of(output)[0])
    assert run.remarks == ["a reconstruction: its method section was not to be had"]


@pytest.mark.parametrize(
    ("settings", "gone"),
    [
        ({"matching": None}, {"alignment"}),
        ({"prediction": None}, {"semantic"}),
        (ALONE, {"alignment", "semantic"}),
        ({"prediction": {"mode": "semantics_from_behaviour"}, "matching": None}, {"alignment"}),
        ({"items": {"table": "t", "adapter": [8]}}, set()),
    ],
)
def test_parts_can_be_switched_off(
    settings: dict[str, Any], gone: set[str], data: Path, inputs: RunInputs, tmp_path: Path
) -> None:
    run = run_of({"epochs": 1}, **settings)
    output = trained(run, data, inputs, tmp_path)
    assert set(rows_of(output)[-1]) & {"alignment", "semantic"} == {"alignment", "semantic"} - gone
    judged = evaluate_run(run, Evaluation(), output, data, inputs, None, tmp_path / "e", tmp_path / "m.json")
    assert judged["metrics"]["NDCG@10"] > 0


def test_held_out_targets_change_no_weight(data: Path, inputs: RunInputs, tmp_path: Path) -> None:
    other = write_dataset(tmp_path / "other", swap_targets=True)
    run = run_of({"epochs": 2})
    one, two = (trained(run, each, inputs, tmp_path / each.name) for each in (data, other))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("after", [1, 9])
def test_a_stop_changes_nothing(after: int, data: Path, inputs: RunInputs, tmp_path: Path) -> None:
    run = run_of({"epochs": 2, "checkpoint_seconds": 0.0})
    expected = trained(run, data, inputs, tmp_path / "whole")
    with stopped_after(after):
        trained(run, data, inputs, tmp_path / "stopped")
    assert list((tmp_path / "stopped/state").rglob("checkpoint.safetensors"))
    again = trained(run, data, inputs, tmp_path / "stopped")
    assert again.read_bytes() == expected.read_bytes()


# ---------------------------------------------------------------- what may be wrong


def test_interests_that_say_the_same_of_all_are_told_and_train(
    data: Path, inputs: RunInputs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = [Interest("a thing", "", [1])] * len(TYPICAL)
    rows = np.full((len(TYPICAL), 6), 0.1, np.float32)
    write_interests(tmp_path / "w.parquet", np.array(TYPICAL), told, rows)
    output = trained(run_of({"epochs": 2}), data, RunInputs(tables={"w": str(tmp_path / "w.parquet")}), tmp_path)
    assert "'w' says the same of every interest" in caplog.text
    assert all(bool(torch.isfinite(value).all()) for value in read_tensors(output).values())
    assert all(np.isfinite(row["loss"]) for row in rows_of(output))


def test_a_table_of_items_that_says_the_same_of_all_trains(data: Path, inputs: RunInputs, tmp_path: Path) -> None:
    write_item_table(tmp_path / "t.parquet", np.arange(1, ITEMS + 1), np.full((ITEMS, 4), 0.1, np.float32))
    read = RunInputs(tables={**inputs.tables, "t": str(tmp_path / "t.parquet")})
    output = trained(run_of({"epochs": 1}, items={"table": "t", "adapter": [8]}), data, read, tmp_path)
    assert all(bool(torch.isfinite(value).all()) for value in read_tensors(output).values())


@pytest.mark.parametrize("user", [81, 300])
def test_interests_of_somebody_who_is_not_there(user: int, data: Path, inputs: RunInputs, tmp_path: Path) -> None:
    path = write_interests_of(tmp_path / "w.parquet", [1, user])
    with pytest.raises(ValueError, match="a user in it has no two training items; make it again"):
        build(RunInputs(tables={"w": str(path)}), data)


def test_interests_that_cannot_be_read(inputs: RunInputs, tmp_path: Path) -> None:
    told = [Interest("a", "", [1]), Interest("b", "", [2])]
    bad = np.array([[1.0, 2.0], [np.nan, 1.0]], np.float32)
    write_interests(tmp_path / "nan.parquet", np.array([1, 4]), told, bad)
    with pytest.raises(ArtifactError, match=r"nan\.parquet: a vector of user 4 holds NaN or infinity"):
        build(RunInputs(tables={"w": str(tmp_path / "nan.parquet")}))
    write_interests(tmp_path / "none.parquet", np.zeros(0, np.int64), [], np.zeros((0, 2), np.float32))
    with pytest.raises(ArtifactError, match=r"none\.parquet: holds no interest of anybody"):
        build(RunInputs(tables={"w": str(tmp_path / "none.parquet")}))
    with pytest.raises(ArtifactError, match="user_interests"):
        build(RunInputs(tables={"w": inputs.tables["t"]}))
    with pytest.raises(ValueError, match="'w' is read, but no file was given"):
        build(RunInputs())


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"interests": "ww"}, "did you mean 'w'"),
        ({"interests": "t"}, "'t' is no table of recipe interests"),
        ({"items": {"table": "w"}}, "'w' has several rows an item"),
        ({"matching": None, "prediction": None}, "neither matching nor prediction reads them"),
        ({"items": {"kind": "dual_view", "text": "t", "fine": "f"}}, "enters a backbone, which this system has not"),
        ({"vectors": 0}, "vectors"),
        ({"network": "capsules", "order": "positions"}, "order: positions are those of network: attention"),
        ({"network": "routing"}, "network"),
        ({"prediction": {"mode": "item"}}, "prediction.mode"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        run_of(**settings)


def test_a_system_is_no_teacher_of_id_vectors() -> None:
    config = {
        "datasets": {"x": {"source": "bazaar"}},
        "tables": {"c": {"recipe": "collaborative", "system": "several"}},
        "systems": {"several": {"recommender": "eimf"}, "s": {"items": {"table": "c"}}},
        "experiment": {"datasets": ["x"], "systems": ["s"]},
    }
    with pytest.raises(ConfigError, match="'several' is no system of IDs"):
        load(config)
