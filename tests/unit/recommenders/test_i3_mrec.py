"""I3-MRec under backbones: environments, fusion by what is there, the bottleneck, two optimisers, whole runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from asking import CPU, START, ask
from i3_runs import build, curve, run_of, trained
from pattern import ITEMS
from stopped_training import stopped_after
from test_findrec import WITHOUT_BOTH, WITHOUT_IMAGE, WITHOUT_TEXT, write_tables
from torch import Tensor

from tessera.artifacts.models import read_tensors
from tessera.artifacts.tables import ArtifactError, write_item_table
from tessera.data.dataset import load_dataset
from tessera.evaluation.histories import Histories
from tessera.objectives.contrastive import soft_contrastive
from tessera.recommenders.evaluate import evaluate_run
from tessera.recommenders.fused_information import patterns
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.systems.base import as_scorer
from tessera.recommenders.systems.i3_mrec_published import PublishedI3MRec
from tessera.recommenders.train import training_histories
from tessera.settings.base import ConfigError
from tessera.settings.evaluation import Evaluation
from tessera.settings.missing import Missing
from tessera.training.engine import Engine
from tessera.training.machine import Machine
from tessera.training.phases import Position

HISTORIES = torch.tensor([[3, 1, 4, 1, 5, 9], [2, 7, 20, 0, 0, 0], [8, 6, 0, 0, 0, 0]])
BATCH = Histories.of(HISTORIES.numpy())
LATE = Position(0, 0, 50, 0.5, {})
"""When all weights have their full height."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> RunInputs:
    return write_tables(tmp_path_factory.mktemp("i3"))


def value(losses: Any, name: str) -> float:
    return float(torch.as_tensor(losses[name].value).detach())


# ---------------------------------------------------------------- what is trained is what is scored


@pytest.mark.parametrize("ids", ["residual", "environment", "none"])
@pytest.mark.parametrize("backbone", ["sasrec", "gru4rec", "mamba"])
def test_the_loss_of_windows_is_that_of_all_prefixes(backbone: str, ids: str, inputs: RunInputs) -> None:
    model = build(run_of(backbone=backbone, ids=ids), inputs)
    total, count = 0.0, 0
    for row in HISTORIES.tolist():
        row = [item for item in row if item]
        for length in range(1, len(row)):
            scores = ask(as_scorer(model, CPU), np.array([row[:length]]))[0]
            total -= float(scores.log_softmax(0)[row[length] - 1])
            count += 1
    loss = model.losses(BATCH, START)["recommendation"]
    assert float(loss.value.detach()) == pytest.approx(total, rel=1e-4)
    assert loss.targets == count


@pytest.mark.parametrize("backbone", ["sasrec", "bert4rec"])
def test_a_history_is_read_alike_beside_longer_ones(backbone: str, inputs: RunInputs) -> None:
    scorer = as_scorer(build(run_of(backbone=backbone), inputs), CPU)
    together = ask(scorer, HISTORIES.numpy(), (HISTORIES > 0).sum(1).numpy())
    for row, wanted in zip(HISTORIES.tolist(), together, strict=True):
        alone = ask(scorer, np.array([[item for item in row if item]]))[0]
        torch.testing.assert_close(alone, wanted, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- environments


def test_risks_are_those_of_each_modality_alone(inputs: RunInputs) -> None:
    """Each by itself: the cross-entropy over the catalogue of its vectors, at the targets that it knows."""
    model = build(run_of(invariance={"weight": 3.0}, environment_weight=2.0), inputs)
    losses = model.losses(BATCH, LATE)
    views = model.environments()
    risks = []
    for number, name in enumerate(("text", "image")):
        vectors, values = views.vectors[number], []
        for row in HISTORIES.tolist():
            row = [item for item in row if item]
            for length in range(1, len(row)):
                if not bool(views.known[row[length], number]):
                    continue
                history = torch.tensor([row[:length]])
                state = model.backbone.encode(history, torch.tensor([length]), vectors)
                values.append(-float((state @ vectors[1:].T).log_softmax(1)[0, row[length] - 1].detach()))
        risks.append(np.mean(values))
        assert float(losses[f"risk_{name}"].value) == pytest.approx(risks[-1], rel=1e-4)
    assert value(losses, "environments") == pytest.approx(2 * sum(risks), rel=1e-4)
    assert value(losses, "penalty") == pytest.approx(np.var(risks, ddof=1), rel=1e-3, abs=1e-9)
    assert value(losses, "invariance") == pytest.approx(3 * np.var(risks, ddof=1), rel=1e-3, abs=1e-9)


@pytest.mark.parametrize("penalty", ["variance", "gradient"])
def test_the_penalty_is_differentiated_as_it_is_defined(penalty: str, inputs: RunInputs) -> None:
    """The gradient of the step's penalty against a difference along one of the projections."""
    model = build(run_of(invariance={"penalty": penalty, "warm_up": 0.0}), inputs)
    weight = model.environments.project["text"][-1].weight
    with torch.no_grad():
        weight.mul_(20)  # risks that differ
    (gradient,) = torch.autograd.grad(model.losses(BATCH, START)["invariance"].value, weight)
    model = model.double()
    weight = model.environments.project["text"][-1].weight
    step, values = 1e-4 * gradient.double() / gradient.norm(), []
    for sign in (1, -1):
        with torch.no_grad():
            weight.add_(sign * step)
            values.append(value(model.losses(BATCH, START), "invariance"))
            weight.add_(-sign * step)
    assert (values[0] - values[1]) / 2e-4 == pytest.approx(float(gradient.norm()), rel=1e-2)


def test_the_weight_rises_with_the_training(inputs: RunInputs) -> None:
    model = build(run_of(invariance={"weight": 2.0, "warm_up": 0.2}), inputs)
    with torch.no_grad():
        model.environments.project["text"][-1].weight.mul_(20)
    heights = []
    for share in (0.0, 0.05, 0.2, 0.9):
        losses = model.losses(BATCH, Position(0, 0, 0, share, {}))
        heights.append(value(losses, "invariance") / value(losses, "penalty"))
    assert heights == pytest.approx([0, 0.5, 2, 2])


def test_the_main_loss_trains_no_modality_unless_it_is_asked_to(inputs: RunInputs) -> None:
    for detach in (True, False):
        model = build(run_of(detach=detach), inputs).train()
        losses = model.losses(BATCH, LATE)
        for name in ("recommendation", "keep", "compress"):
            model.zero_grad()
            losses[name].value.backward(retain_graph=True)
            reached = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
            projections = {name for name in reached if name.startswith("environments.project")}
            assert bool(projections) is (not detach), name
            assert "fusion.weight.weight" in reached
        model.zero_grad()
        losses["environments"].value.backward()
        reached = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        assert {"environments.project.text.0.weight", "environments.project.image.0.weight"} <= reached
        assert not [name for name in reached if name.startswith(("fusion", "residual"))]


# ---------------------------------------------------------------- fusion by what is there


def test_fusion_divides_by_what_is_there(inputs: RunInputs) -> None:
    model = build(run_of(ids="none"), inputs)
    views = model.environments()
    scored = model.catalogue().scored
    matrix = model.fusion.weight.weight
    for item, kept in ((1, [0, 1]), (WITHOUT_TEXT, [1]), (WITHOUT_IMAGE, [0])):
        torch.testing.assert_close(scored[item], (matrix @ views.vectors[kept, item].mean(0)).tanh())
    torch.testing.assert_close(matrix, torch.eye(16))
    with torch.no_grad():  # as if training had met an item without anything
        model.fusion.absent.add_(0.3)
    torch.testing.assert_close(model.catalogue().scored[WITHOUT_BOTH], (matrix @ model.fusion.absent).tanh())


def test_ids_enter_where_they_are_asked_to(inputs: RunInputs) -> None:
    fused = build(run_of(ids="none"), inputs).catalogue().scored
    added = build(run_of(ids="residual"), inputs)
    torch.testing.assert_close(added.catalogue().scored, fused + added.residual)
    one_more = build(run_of(ids="environment"), inputs)
    views = one_more.environments()
    assert one_more.environments.names == ["text", "image", "ids"]
    for item, kept in ((1, [0, 1, 2]), (WITHOUT_TEXT, [1, 2]), (WITHOUT_BOTH, [2])):
        torch.testing.assert_close(one_more.catalogue().scored[item], views.vectors[kept, item].mean(0).tanh())
    assert one_more.item_rows() == ["environments.ids"]
    assert "risk_ids" in one_more.losses(BATCH, START)


def test_what_an_item_lacks_is_read_by_nobody(inputs: RunInputs) -> None:
    """Whatever stands in a table's row that is not there, and in that of the padding, changes nothing."""
    model = build(run_of(), inputs)
    before = ask(as_scorer(model, CPU), HISTORIES.numpy(), (HISTORIES > 0).sum(1).numpy())

    def told() -> dict[str, float]:
        return {name: value({name: term}, name) for name, term in model.losses(BATCH, LATE).items()}

    losses = told()
    for name, lacking in (("text", [0, WITHOUT_TEXT, WITHOUT_BOTH]), ("image", [0, WITHOUT_IMAGE, WITHOUT_BOTH])):
        model.environments.table(name)[lacking] = 100.0
    after = ask(as_scorer(model, CPU), HISTORIES.numpy(), (HISTORIES > 0).sum(1).numpy())
    torch.testing.assert_close(after, before)
    assert told() == pytest.approx(losses, rel=1e-5)


def test_lost_at_test_is_fused_as_never_there(inputs: RunInputs) -> None:
    model = build(run_of(), inputs, Missing(image=1.0, when="test"))
    views, fused = model.environments(), model.fusion(model.environments())
    assert not views.known[:, 1].any()
    torch.testing.assert_close(fused[1], views.vectors[0, 1].tanh())
    # never learned: the mean of those that have something stands there
    torch.testing.assert_close(fused[WITHOUT_IMAGE], views.vectors[0, WITHOUT_IMAGE].tanh())
    model.train()
    assert model.environments.known()[1].all(), "training has lost nothing"


@pytest.mark.parametrize(
    "missing",
    [{"image": 0.5}, {"image": 1.0}, {"image": 1.0, "text": 1.0}, {"text": 0.5, "when": "test"}],
)
@pytest.mark.parametrize("penalty", ["variance", "gradient"])
def test_lost_pictures_and_texts_train_and_are_judged(
    missing: dict[str, Any], penalty: str, data: Path, inputs: RunInputs, tmp_path: Path
) -> None:
    run = run_of(training={"epochs": 1}, invariance={"penalty": penalty})
    lost = Missing.model_validate(missing)
    run = run.model_copy(update={"missing": lost, "modalities": {"t": ["text"], "p": ["image"]}})
    output = trained(run, data, inputs, tmp_path)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in read_tensors(output).values())
    model = build(run, inputs, lost)
    model.load_state_dict(read_tensors(output))
    assert torch.isfinite(ask(as_scorer(model, CPU), np.array([[7, 5, 9]]))).all()


# ---------------------------------------------------------------- the bottleneck


def test_all_patterns_but_nothing() -> None:
    assert [p.tolist() for p in patterns(2)] == [[True, False], [False, True], [True, True]]
    assert len(patterns(3)) == 7
    assert len({tuple(p.tolist()) for p in patterns(3)}) == 7


def test_keep_is_the_mean_of_contrasts_over_pairs(inputs: RunInputs) -> None:
    """Of the items for which two patterns differ: those that have both modalities."""
    model = build(run_of(ids="none", keep={"weight": 1.0, "temperature": 0.4}), inputs)
    items = torch.tensor([1, 2, 3, WITHOUT_TEXT, WITHOUT_IMAGE, WITHOUT_BOTH])
    views = model.environments()
    text, image = (views.vectors[number, [1, 2, 3]] for number in (0, 1))
    fused = [part.tanh() for part in (text, image, (text + image) / 2)]
    losses = []
    for one, other in ((0, 1), (0, 2), (1, 2)):
        x, y = (F.normalize(fused[number], dim=1) for number in (one, other))
        logits = x @ y.T / 0.4
        here = torch.arange(3)
        losses.append((F.cross_entropy(logits, here) + F.cross_entropy(logits.T, here)) / 2)
    torch.testing.assert_close(model.kept(views, items), torch.stack(losses).mean())
    assert float(model.kept(views, items[3:]).detach()) == 0, "for them no two patterns differ"
    three = build(run_of(ids="environment"), inputs)
    assert float(three.kept(three.environments(), torch.arange(1, 20)).detach()) > 0


def test_compress_asks_about_what_the_estimators_are_fitted_on(inputs: RunInputs) -> None:
    model = build(run_of(compress={"weight": 1.0}), inputs).train()
    views = model.environments()
    fused = model.fusion(views)
    items = torch.tensor([1, 2, 3, WITHOUT_TEXT, WITHOUT_BOTH])
    bound = model.compressed(model.environments, views, fused, items)
    asked = model.compressed.asked
    assert [each.name for each in asked] == ["text", "image"]
    assert torch.equal(asked[0].x, model.environments.table("text")[[1, 2, 3]])
    assert torch.equal(asked[1].x, model.environments.table("image")[[1, 2, 3, WITHOUT_TEXT]])
    own = fused[[1, 2, 3]].detach()
    torch.testing.assert_close(asked[0].y, own / own.square().mean().sqrt())
    assert not asked[0].y.requires_grad
    assert bound.requires_grad
    model.compressed.fit()
    assert not model.compressed.asked


def test_the_bound_is_that_of_pairs(inputs: RunInputs) -> None:
    model = build(run_of(ids="none", image=None, keep=None, invariance=None), inputs)
    views = model.environments()
    fused = model.fusion(views)
    items = torch.tensor([1, 2, 3, 4])
    bound = model.compressed(model.environments, views, fused, items)
    y = fused[items] / fused[items].square().mean().sqrt()
    means, logs = model.compressed.estimators["text"](model.environments.table("text")[items])
    law = torch.distributions.Normal(means[:, None], (logs / 2).exp()[:, None])
    pairs = law.log_prob(y[None]).sum(2)
    torch.testing.assert_close(bound, pairs.diagonal().mean() - pairs.mean())


# ---------------------------------------------------------------- two optimisers in turn


def test_neither_update_moves_what_is_the_others(
    data: Path, inputs: RunInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(training={"epochs": 1}, compress={"weight": 1.0})
    model = build(run, inputs)
    program = model.program(run, training_histories(load_dataset(data)), None)
    engine = Engine(model, program, run.training, 1, tmp_path, Machine(run.training))
    update = Engine._update
    moves: list[tuple[str, set[str]]] = []

    def snapshot() -> dict[str, Tensor]:
        return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    def watched(self: Engine, phase: Any, asked: Any) -> None:
        before = snapshot()
        update(self, phase, asked)
        after = snapshot()
        moves.append((asked.optimizer, {name for name in before if not torch.equal(before[name], after[name])}))

    monkeypatch.setattr(Engine, "_update", watched)
    engine.fit()
    estimators = {name for name, _ in model.named_parameters() if name.startswith("compressed.")}
    assert len(estimators) == 16
    assert [name for name, _ in moves[:4]] == ["model", "club", "model", "club"]
    assert set.union(*(moved for name, moved in moves if name == "model")) == set(snapshot()) - estimators
    assert set.union(*(moved for name, moved in moves if name == "club")) == estimators


def test_the_estimators_learn_and_the_curve_tells(data: Path, inputs: RunInputs, tmp_path: Path) -> None:
    rows = curve(trained(run_of(training={"epochs": 4, "validate_every": 4}), data, inputs, tmp_path))
    assert rows[0]["club_fit"] > rows[-1]["club_fit"]
    names = {"recommendation", "environments", "risk_text", "risk_image", "invariance", "penalty", "keep", "compress"}
    assert names | {"information", "club_fit"} <= set(rows[0])


# ---------------------------------------------------------------- parts, presets


@pytest.mark.parametrize(
    ("settings", "gone"),
    [
        ({"invariance": None}, {"invariance", "penalty"}),
        ({"keep": None}, {"keep"}),
        ({"compress": None}, {"compress", "information", "club_fit"}),
        ({"environment_weight": 0.0}, {"environments"}),
        (
            {"environment_weight": 0.0, "invariance": None, "detach": False},
            {"environments", "invariance", "penalty", "risk_text"},
        ),
        ({"image": None}, {"invariance", "penalty", "keep"}),
        ({"image": None, "ids": "environment"}, set()),
    ],
)
def test_parts_can_be_switched_off(
    settings: dict[str, Any], gone: set[str], data: Path, inputs: RunInputs, tmp_path: Path
) -> None:
    row = curve(trained(run_of(training={"epochs": 1}, **settings), data, inputs, tmp_path))[-1]
    whole = {
        "environments", "invariance", "penalty", "keep", "compress", "information", "club_fit", "risk_text"
    }  # fmt: skip
    assert set(row) & whole == whole - gone


def test_the_published_habits_are_there_when_asked_for(inputs: RunInputs) -> None:
    model = build(run_of(preset="official", ids="none"), inputs)
    assert isinstance(model, PublishedI3MRec)
    views = model.environments()
    assert views.known.all(), "a row of zeros counts like any other"
    bias = model.environments.project["text"](torch.zeros(6))
    torch.testing.assert_close(views.vectors[0, WITHOUT_TEXT], bias)
    torch.testing.assert_close(model.fusion(views)[WITHOUT_TEXT], views.vectors[:, WITHOUT_TEXT].mean(0).tanh())
    assert model.fusion.divisor(torch.tensor([[True, False]])).tolist() == [[2]]
    items = torch.tensor([1, 2, 3])
    plain = [
        soft_contrastive(
            *(model.fusion.made(model.fusion.mean(views.vectors[:, items], views.known[items] & p)) for p in pair),
            0.4, normalize=True, targets="identity",
        )
        for pair in ((patterns(2)[a], patterns(2)[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    ]  # fmt: skip
    torch.testing.assert_close(model.kept(views, items), 2 * 7 / 6 * sum(plain))
    model.compressed(model.environments, views, model.fusion(views), items)
    own = views.vectors[0, items].detach()
    torch.testing.assert_close(model.compressed.asked[0].y, own / own.square().mean().sqrt())
    assert model.invariance.warm_up == 0
    rows = model.environments.table("text")[1:]
    torch.testing.assert_close(rows[[0, 1]].norm(dim=1), torch.ones(2))


@pytest.mark.parametrize(
    ("habit", "others"),
    [("pairs", "seven_sixths"), ("fitted_on", "projections"), ("divide", "all"), ("absent", "bias")],
)
def test_each_habit_has_a_key_of_its_own(habit: str, others: str, inputs: RunInputs) -> None:
    run = run_of(**{habit: others})
    model = build(run, inputs)
    assert isinstance(model, PublishedI3MRec)
    assert not isinstance(build(run_of(), inputs), PublishedI3MRec)
    views = model.environments()
    if habit == "divide":
        torch.testing.assert_close(model.fusion(views)[WITHOUT_TEXT], (views.vectors[1, WITHOUT_TEXT] / 2).tanh())
    assert bool(views.known[WITHOUT_TEXT, 0]) is (habit == "absent")
    assert torch.isfinite(model.losses(BATCH, LATE)["keep"].value)


# ---------------------------------------------------------------- training as a whole


def test_it_learns_a_pattern_and_is_judged(data: Path, inputs: RunInputs, tmp_path: Path) -> None:
    run = run_of(training={"epochs": 8, "learning_rate": 0.03, "validate_every": 8})
    output = trained(run, data, inputs, tmp_path)
    judged = evaluate_run(run, Evaluation(), output, data, inputs, None, tmp_path / "e", tmp_path / "m.json")
    assert judged["metrics"]["Hit@5"] > 0.4  # by chance a sixth


def test_a_backbone_that_looks_both_ways_hides_the_same_items_in_all_environments(
    data: Path, inputs: RunInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(run_of(backbone="bert4rec"), inputs).train()
    examples, asked = model.backbone.examples, []

    def watched(histories: Tensor, vectors: Tensor, drawn: Tensor | None = None) -> Any:
        made = examples(histories, vectors, drawn)
        asked.append(made.targets.tolist())
        return made

    monkeypatch.setattr(model.backbone, "examples", watched)
    model.losses(BATCH, START)
    assert len(asked) == 3
    assert asked[0] == asked[1] == asked[2]
    rows = curve(trained(run_of(backbone="bert4rec", training={"epochs": 3}), data, inputs, tmp_path))
    assert rows[-1]["environments"] < rows[0]["environments"]


@pytest.mark.parametrize("after", [1, 9])
def test_a_stop_changes_nothing(after: int, data: Path, inputs: RunInputs, tmp_path: Path) -> None:
    run = run_of(training={"epochs": 2, "batch_tokens": 250, "checkpoint_seconds": 0.0}, invariance={"warm_up": 0.5})
    expected = trained(run, data, inputs, tmp_path / "whole")
    with stopped_after(after):
        trained(run, data, inputs, tmp_path / "stopped")
    assert list((tmp_path / "stopped/state").rglob("checkpoint.safetensors"))
    assert trained(run, data, inputs, tmp_path / "stopped").read_bytes() == expected.read_bytes()


# ---------------------------------------------------------------- what may be wrong


def test_a_modality_that_says_the_same_of_all_is_told_and_trains(
    data: Path, inputs: RunInputs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "p.parquet"
    write_item_table(path, np.arange(1, ITEMS + 1), np.full((ITEMS, 4), 0.1, np.float32))
    read = RunInputs(tables={**inputs.tables, "p": str(path)})
    output = trained(run_of(training={"epochs": 2}), data, read, tmp_path / "run")
    assert "the table 'p' says the same of every item" in caplog.text
    assert all(bool(torch.isfinite(tensor).all()) for tensor in read_tensors(output).values())


def test_one_environment_is_told(inputs: RunInputs, caplog: pytest.LogCaptureFixture) -> None:
    build(run_of(image=None), inputs)
    assert "text is the only environment: there is nothing to be invariant over" in caplog.text
    caplog.clear()
    build(run_of(image=None, invariance=None, keep=None), inputs)
    build(run_of(image=None, ids="environment"), inputs)
    assert not caplog.text


def test_a_table_without_a_row_is_told(inputs: RunInputs, tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    write_item_table(path, np.array([], np.int32), np.zeros((0, 4), np.float32))
    with pytest.raises(ArtifactError, match=r"p\.parquet: has no vector of any item of this dataset"):
        build(run_of(), RunInputs(tables={**inputs.tables, "p": str(path)}))


def test_a_batch_that_no_environment_knows_has_no_risk(inputs: RunInputs) -> None:
    model = build(run_of(), inputs).train()
    losses = model.losses(Histories.of(np.array([[WITHOUT_BOTH, WITHOUT_BOTH]])), LATE)
    total = sum(term.value for term in losses.values() if term.trained)
    total.backward()
    assert value(losses, "environments") == value(losses, "invariance") == value(losses, "keep") == 0
    assert torch.isfinite(model._fit()["club"].value)
    assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in model.parameters())


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"text": None, "image": None}, "needs a table: text or image, one at least"),
        ({"text": "tt"}, "did you mean 't'"),
        ({"environment_weight": 0.0, "invariance": None}, "nothing would train the modalities; set it to false"),
        ({"environment_weight": 0.0, "image": None}, "nothing would train the modalities; set it to false"),
        ({"invariance": {"penalty": "irm"}}, r"invariance\.penalty"),
        ({"invariance": {"weight": 0.0}}, r"invariance\.weight"),
        ({"invariance": {"warm_up": 1.5}}, r"invariance\.warm_up"),
        ({"missing": {"image": 1.5}}, r"missing\.image"),
        ({"ids": "both"}, "ids"),
        ({"lambda": 1}, "unknown key 'lambda'"),
    ],
)
def test_wrong_settings_are_told(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        run_of(**settings)


def test_every_table_of_results_says_which_form_it_is() -> None:
    assert run_of().remarks == ["the sequential form of a system published for unordered histories"]


def test_new_items_are_what_tables_say(inputs: RunInputs) -> None:
    for ids in ("residual", "environment", "none"):
        model = build(run_of(ids=ids), inputs)
        with torch.no_grad():  # as if training had met an item without anything
            model.fusion.absent.add_(0.3)
        before = model.catalogue().scored.detach().clone()
        raw = {name: inputs.read_table(name, ITEMS)[0] for name in ("t", "p")}
        rows = {name: (table[[1, 2]], torch.tensor([True, name == "t"])) for name, table in raw.items()}
        model.add_items(rows)
        after = model.catalogue().scored
        torch.testing.assert_close(after[: ITEMS + 1], before)
        views = model.environments()
        torch.testing.assert_close(after[ITEMS + 1], views.vectors[:2, 1].mean(0).tanh())
        torch.testing.assert_close(after[ITEMS + 2], views.vectors[0, 2].tanh())
