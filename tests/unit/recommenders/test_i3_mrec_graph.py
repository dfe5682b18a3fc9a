"""I3-MRec as a graph: its edges, convolutions by hand, who is known, pairs and negatives, the run as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from asking import CPU, ask
from i3_runs import build, curve, run_of, trained
from pattern import ITEMS, write_dataset
from stopped_training import stopped_after
from test_findrec import WITHOUT_BOTH, WITHOUT_TEXT, write_tables
from torch import Tensor

import tessera
from tessera.artifacts.models import read_tensors, write_model
from tessera.data.dataset import load_dataset
from tessera.evaluation.histories import Histories
from tessera.recommenders.evaluate import evaluate_run
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.systems.base import TrainingHistories, as_scorer
from tessera.recommenders.systems.i3_mrec_graph import I3MRecGraph
from tessera.recommenders.systems.i3_mrec_graph_published import PublishedI3MRecGraph
from tessera.recommenders.train import training_histories
from tessera.recommenders.user_item_graph import EdgeBatches, Negatives, Pairs, UserItemGraph
from tessera.serving.tower import CLOSE, write_tower
from tessera.settings.base import ConfigError
from tessera.settings.evaluation import Evaluation
from tessera.training.phases import Position

FORM = "i3_mrec_graph"
LATE = Position(0, 3, 50, 0.5, {})
TRAINED = TrainingHistories(np.array([0, 3, 5, 5, 9]), np.array([1, 2, 1, 2, 4, 4, 1, 3, 3]))
"""Four users over items 1 to 5: the third has nothing, item 5 nobody; two met an item twice."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> RunInputs:
    return write_tables(tmp_path_factory.mktemp("i3"))


def graph() -> UserItemGraph:
    made = UserItemGraph(6)
    made.meet(TRAINED)
    return made


def met(inputs: RunInputs, data: Path, **settings: Any) -> I3MRecGraph:
    """An untrained model that met the training histories."""
    run = run_of(FORM, **settings)
    model = build(run, inputs)
    model.program(run, training_histories(load_dataset(data)), None)
    assert isinstance(model, I3MRecGraph)
    return model


# ---------------------------------------------------------------- the graph


def adjacency(users: int = 5, items: int = 6) -> Tensor:
    """Dense and by hand: D^-1/2 A D^-1/2, an edge once."""
    plain = torch.zeros(users + items, users + items)
    for user in range(1, users):
        for item in TRAINED.items[TRAINED.offsets[user - 1] : TRAINED.offsets[user]].tolist():
            plain[user, users + item] = plain[users + item, user] = 1
    roots = plain.sum(1).clamp(min=1).rsqrt()
    return roots[:, None] * plain * roots


def test_edges_are_pairs_that_met() -> None:
    users, items = graph().edges()
    assert list(zip(users.tolist(), items.tolist(), strict=True)) == [
        (1, 1), (1, 2), (2, 2), (2, 4), (4, 1), (4, 3), (4, 4)
    ]  # fmt: skip


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_convolutions_are_those_of_the_dense_matrix(layers: int) -> None:
    made = graph()
    torch.testing.assert_close(made.matrix().to_dense(), adjacency())
    x = torch.randn(11, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    ours = made.propagate(x, layers)
    layer, total = x, x
    for _ in range(layers):
        layer = adjacency() @ layer
        total = total + layer
    plain = total / (layers + 1)
    torch.testing.assert_close(ours, plain)
    weights = torch.randn(11, 4, generator=torch.Generator().manual_seed(1))
    gradients = [torch.autograd.grad((made * weights).sum(), x)[0] for made in (ours, plain)]
    torch.testing.assert_close(gradients[0], gradients[1])
    torch.testing.assert_close(ours[3], x[3] / (layers + 1))  # who has no edge is alone


def test_environments_are_convolved_each_for_itself(data: Path, inputs: RunInputs) -> None:
    model = met(inputs, data)
    views = model.environments()
    users, items = model.convolved(views)
    for number in range(2):
        entering = torch.cat([model.vectors.weight, views.vectors[number]])
        alone = model.graph.propagate(F.normalize(entering, dim=1), 3)
        torch.testing.assert_close(users[number], alone[: model.graph.users])
        torch.testing.assert_close(items[number], alone[model.graph.users :])


def test_edges_are_of_training_alone(data: Path, inputs: RunInputs, tmp_path: Path) -> None:
    """Other targets of the test change no weight, and no edge is a held-out interaction."""
    other = write_dataset(tmp_path / "other", swap_targets=True)
    files = [trained(run_of(FORM), part, inputs, tmp_path / part.name) for part in (data, other)]
    one, two = (read_tensors(file) for file in files)
    assert all(torch.equal(one[name], two[name]) for name in one)
    dataset = load_dataset(data)
    held = {(int(u), int(i)) for u, i, s in zip(dataset.users, dataset.items, dataset.split, strict=True) if s}
    seen = {(int(u), int(i)) for u, i, s in zip(dataset.users, dataset.items, dataset.split, strict=True) if not s}
    model = met(inputs, data)
    edges = set(zip(*(part.tolist() for part in model.graph.edges()), strict=True))
    assert edges == seen
    assert held - seen
    assert not (held - seen) & edges


# ---------------------------------------------------------------- pairs and negatives


def test_every_edge_once_an_epoch() -> None:
    batches = EdgeBatches(graph(), 3)
    plan = batches.plan(1, 0)
    assert [len(part) for part in plan] == [3, 3, 1]
    pairs = [batches.batch(part) for part in plan]
    told = [(u, i) for part in pairs for u, i in zip(part.users.tolist(), part.items.tolist(), strict=True)]
    assert sorted(told) == list(zip(*(part.tolist() for part in graph().edges()), strict=True))
    assert batches.targets == 7
    assert any(not np.array_equal(a, b) for a, b in zip(plan, batches.plan(1, 1), strict=True))


def test_negatives_are_items_that_the_user_did_not_meet() -> None:
    negatives = Negatives(graph())
    users = torch.tensor([1, 2, 4] * 500)
    drawn = negatives.draw(users, 1, 0, 0)
    for user, free in ((1, {3, 4, 5}), (2, {1, 3, 5}), (4, {2, 5})):
        own = drawn[users == user]
        share = [float((own == item).float().mean()) for item in range(1, 6)]
        missed = sum(share[item - 1] for item in range(1, 6) if item not in free)
        assert missed < 0.03, "only where all draws met"
        assert all(share[item - 1] == pytest.approx(1 / len(free), abs=0.07) for item in free)
    assert torch.equal(drawn, negatives.draw(users, 1, 0, 0))
    assert not torch.equal(drawn, negatives.draw(users, 1, 0, 1))
    assert torch.equal(drawn[:7], negatives.draw(users[:7], 1, 0, 0)), "a larger step begins with the same"


# ---------------------------------------------------------------- losses


@pytest.mark.parametrize("penalty", ["variance", "gradient"])
def test_losses_are_those_of_pairs_one_by_one(penalty: str, data: Path, inputs: RunInputs) -> None:
    settings = {"invariance": {"penalty": penalty, "weight": 5.0}, "regularization": 0.1}
    model = met(inputs, data, **settings)
    pairs = EdgeBatches(model.graph, 40).batch(np.arange(40))
    losses = model.losses(pairs, LATE)
    views = model.environments()
    users, items = model.convolved(views)
    fused = model.catalogue().scored
    others = Negatives(model.graph).draw(pairs.users, model.seed, LATE.epoch, LATE.step)
    main, lengths = 0.0, 0.0
    risks: list[list[Tensor]] = [[], []]
    slopes: list[list[Tensor]] = [[], []]
    for user, item, other in zip(pairs.users.tolist(), pairs.items.tolist(), others.tolist(), strict=True):
        own = model.vectors.weight[user]
        state = own + (users[0, user] + users[1, user]) / 2
        main -= float(torch.sigmoid(state @ fused[item] - state @ fused[other]).log().detach())
        for number in range(2):
            state = own + users[number, user]
            parts = (state, items[number, item], items[number, other])
            lengths += float(sum(part.detach().square().sum() for part in parts)) / 4
            if views.known[item, number]:
                scale = torch.ones((), requires_grad=True)
                score = scale * (state @ items[number, item] - state @ items[number, other])
                risk = -torch.sigmoid(score).log()
                slopes[number].append(torch.autograd.grad(risk, scale, retain_graph=True)[0].detach())
                risks[number].append(risk.detach())
    means = [float(torch.stack(each).mean()) for each in risks]
    assert float(losses["recommendation"].value.detach()) == pytest.approx(main, rel=1e-4)
    assert float(losses["environments"].value.detach()) == pytest.approx(sum(means), rel=1e-4)
    steep = sum(float(torch.stack(each).mean()) ** 2 for each in slopes)
    expected = np.var(means, ddof=1) if penalty == "variance" else steep
    assert float(losses["invariance"].value.detach()) == pytest.approx(5 * expected, rel=1e-3, abs=1e-9)
    assert float(losses["regularization"].value.detach()) == pytest.approx(0.1 * lengths, rel=1e-4)


def test_the_first_environment_alone_is_regularized_as_published(data: Path, inputs: RunInputs) -> None:
    model = met(inputs, data, regularize="first")
    assert isinstance(model, PublishedI3MRecGraph)
    parts = [torch.randn(2, 5, 12) for _ in range(3)]
    wanted = sum(part[0].square().sum() for part in parts) / 2
    torch.testing.assert_close(model.lengths(*parts), wanted)
    everything = sum(part.square().sum() for part in parts) / 4
    torch.testing.assert_close(met(inputs, data).lengths(*parts), everything)


def test_the_fused_task_trains_users_and_the_fusion_alone(data: Path, inputs: RunInputs) -> None:
    model = met(inputs, data).train()
    pairs = EdgeBatches(model.graph, 40).batch(np.arange(40))
    items = model.environments.project["text"][-1].weight
    losses = model.losses(pairs, LATE)
    for name in ("keep", "compress"):
        assert torch.autograd.grad(losses[name].value, items, retain_graph=True, allow_unused=True)[0] is None
    for name in ("recommendation", "environments"):
        reached = torch.autograd.grad(losses[name].value, model.vectors.weight, retain_graph=True)[0]
        assert bool(reached.abs().sum() > 0)
    # users read the items' convolutions: what is fused does not
    fused = model.fusion(model.environments())
    assert torch.autograd.grad(fused.sum(), items, allow_unused=True)[0] is None


# ---------------------------------------------------------------- who is known


def test_known_users_are_told_by_id_and_history(data: Path, inputs: RunInputs) -> None:
    made = graph()
    rows = np.array([[1, 2, 1, 5], [1, 2, 1, 0], [1, 2, 0, 0], [3, 2, 1, 0], [2, 4, 0, 0], [4, 1, 3, 3], [2, 4, 0, 0]])
    users = np.array([1, 1, 1, 1, 2, 4, 99])
    asked = Histories.of(rows, users=users)
    assert made.known(asked).tolist() == [True, True, False, False, True, True, False]
    assert not made.known(Histories.of(rows)).any()
    assert not UserItemGraph(6).known(asked).any()


def test_a_user_is_scored_by_id_and_a_stranger_by_the_history(data: Path, inputs: RunInputs) -> None:
    model = met(inputs, data)
    scorer = as_scorer(model, CPU)
    histories = training_histories(load_dataset(data))
    row = histories.items[histories.offsets[4] : histories.offsets[5]][None].astype(np.int64)
    users, items = model.convolved(model.environments())
    fused = model.catalogue().scored
    by_id = ask(scorer, row, users=np.array([5]))[0]
    state = model.vectors.weight[5] + users[:, 5].mean(0)
    torch.testing.assert_close(by_id, (fused @ state)[1:])
    longer = np.concatenate([row, [[7]]], 1)
    torch.testing.assert_close(ask(scorer, longer, users=np.array([5]))[0], by_id)
    degrees = torch.bincount(model.graph.edges()[1], minlength=ITEMS + 1).clamp(min=1)
    made = sum(items[:, item].mean(0) / degrees[item].sqrt() for item in row[0].tolist()) / row.shape[1] ** 0.5
    torch.testing.assert_close(ask(scorer, row)[0], (fused @ made)[1:])
    padded = np.concatenate([row, np.zeros((1, 4), np.int64)], 1)
    torch.testing.assert_close(ask(scorer, padded, np.array([row.shape[1]])), ask(scorer, row))
    torch.testing.assert_close(ask(scorer, padded, np.array([row.shape[1]]), np.array([5]))[0], by_id)


def test_what_an_item_lacks_is_read_by_nobody(data: Path, inputs: RunInputs) -> None:
    model = met(inputs, data)
    before = model.catalogue()
    for name in ("text", "image"):
        model.environments.table(name)[[0, WITHOUT_BOTH]] = 100.0
    model.environments.table("text")[WITHOUT_TEXT] = 100.0
    after = model.catalogue()
    torch.testing.assert_close(after.read, before.read)
    torch.testing.assert_close(after.scored, before.scored)
    _, items = model.convolved(model.environments())
    torch.testing.assert_close(after.scored[WITHOUT_TEXT], items[1, WITHOUT_TEXT].tanh())
    torch.testing.assert_close(after.scored[1], items[:, 1].mean(0).tanh())


def test_new_items_are_what_tables_say(data: Path, inputs: RunInputs) -> None:
    model = met(inputs, data)
    with torch.no_grad():  # as if training had met items without a text, a picture, or both
        for absent in (model.fusion.absent, *model.environments.absent.values()):
            absent.add_(0.3)
    before = as_scorer(model, CPU)
    row = np.array([[1, 2, 3]])
    scores = ask(before, row)
    raw = {name: inputs.read_table(name, ITEMS)[0] for name in ("t", "p")}
    before.add_items({name: (table[[1, 2]], torch.tensor([True, True])) for name, table in raw.items()})
    after = ask(before, row)
    assert after.shape == (1, ITEMS + 2)
    torch.testing.assert_close(after[:, :ITEMS], scores)


# ---------------------------------------------------------------- training as a whole


def test_it_learns_who_likes_what_and_is_judged(data: Path, inputs: RunInputs, tmp_path: Path) -> None:
    run = run_of(FORM, training={"epochs": 12, "learning_rate": 0.03, "validate_every": 6})
    output = trained(run, data, inputs, tmp_path)
    judged = evaluate_run(run, Evaluation(), output, data, inputs, None, tmp_path / "e", tmp_path / "m.json")
    assert judged["metrics"]["Hit@10"] > 0.5  # by chance less than two fifths, seen items left out
    rows = curve(output)
    assert rows[0]["recommendation"] > rows[-1]["recommendation"]
    assert {"regularization", "environments", "keep", "compress", "club_fit"} <= set(rows[0])


@pytest.mark.parametrize("after", [1, 5])
def test_a_stop_changes_nothing(after: int, data: Path, inputs: RunInputs, tmp_path: Path) -> None:
    run = run_of(FORM, training={"epochs": 2, "checkpoint_seconds": 0.0})
    expected = trained(run, data, inputs, tmp_path / "whole")
    with stopped_after(after):
        trained(run, data, inputs, tmp_path / "stopped")
    assert list((tmp_path / "stopped/state").rglob("checkpoint.safetensors"))
    assert trained(run, data, inputs, tmp_path / "stopped").read_bytes() == expected.read_bytes()


@pytest.mark.parametrize("settings", [{"preset": "official"}, {"image": None}, {"compress": None}, {"keep": None}])
def test_variants_train(settings: dict[str, Any], data: Path, inputs: RunInputs, tmp_path: Path) -> None:
    output = trained(run_of(FORM, training={"epochs": 1}, **settings), data, inputs, tmp_path)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in read_tensors(output).values())


def test_it_is_loaded_and_saved_for_strangers(data: Path, inputs: RunInputs, tmp_path: Path) -> None:
    """In a person's hands histories are asked about, not ids: the lists are those of the scorer for nobody known."""
    root = tmp_path / "results/x"
    write_dataset(root / "data")
    for name in ("t", "p"):
        (root / "tables").mkdir(exist_ok=True)
        (root / "tables" / f"{name}.parquet").write_bytes(Path(inputs.tables[name]).read_bytes())
    run = run_of(FORM, training={"epochs": 1})
    folder = root / "runs/s" / FORM / "seed-1"
    folder.mkdir(parents=True)
    write_model(folder / "model.safetensors", {"x": torch.zeros(1)}, {"run": run.model_dump(mode="json")})
    trained(run, root / "data", inputs, folder)
    shop = tessera.load(folder, device="cpu")
    lists = shop.recommend(["i1", "i2", "i3"], k=5)
    scores = ask(shop.scorer, np.array([[1, 2, 3]]))[0]
    assert lists.item.tolist() == [f"i{int(n) + 1}" for n in scores.argsort(descending=True) if n > 2][:5]
    again = tessera.load(shop.save(tmp_path / "saved"), device="cpu")
    assert again.recommend(["i1", "i2", "i3"], k=5).equals(lists)


def test_the_tower_to_hand_on_knows_nobody(data: Path, inputs: RunInputs, tmp_path: Path) -> None:
    model = met(inputs, data)
    with torch.no_grad():
        prepared = model.prepare()
    assert write_tower(model, prepared, tmp_path / "user.onnx") < CLOSE
    assert (tmp_path / "user.onnx").stat().st_size < model.known_users.nbytes + prepared.read.nbytes + 10_000


def test_it_cannot_go_on_from_other_users(inputs: RunInputs) -> None:
    with pytest.raises(ValueError, match="a vector a user"):
        build(run_of(FORM), inputs).item_rows()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"text": None, "image": None}, "needs a table"),
        ({"layers": 0}, "layers"),
        ({"backbones": ["sasrec"]}, "unknown key 'backbones'"),
        ({"ids": "none"}, "unknown key 'ids'"),
    ],
)
def test_wrong_settings_are_told(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        run_of(FORM, **settings)


def test_a_share_without_a_pair_still_trains(data: Path, inputs: RunInputs) -> None:
    """What a process has whose share of a small batch is empty."""
    model = met(inputs, data).train()
    nothing = torch.zeros(0, dtype=torch.int64)
    losses = model.losses(Pairs(nothing, nothing), LATE)
    assert all(bool(torch.isfinite(torch.as_tensor(term.value)).all()) for term in losses.values())
