"""FindRec: its streams and what they lack, causality, two optimisers in turn, experts in use, the run as a whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from asking import CPU, START, ask
from pattern import ITEMS
from stopped_training import stopped_after
from torch import Tensor

from tessera.artifacts.models import read_tensors
from tessera.artifacts.tables import ArtifactError, write_item_table
from tessera.data.dataset import load_dataset
from tessera.evaluation.histories import Histories
from tessera.plan.graph import Plan
from tessera.recommenders.bottleneck import Bottleneck, divergence
from tessera.recommenders.evaluate import evaluate_run
from tessera.recommenders.experts import Experts, entropy_of, use_of
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.systems.base import TrainingHistories, as_scorer, recommender
from tessera.recommenders.systems.findrec import FindRec
from tessera.recommenders.train import train_run, training_histories
from tessera.settings.base import ConfigError
from tessera.settings.config import load
from tessera.settings.evaluation import Evaluation
from tessera.settings.missing import Missing
from tessera.settings.runs import Run
from tessera.training.engine import Engine
from tessera.training.machine import Machine, seed_step

WITHOUT_TEXT, WITHOUT_IMAGE, WITHOUT_BOTH = 5, 9, 7
POPULARITY = np.arange(ITEMS + 1)
SMALL: dict[str, Any] = {
    "recommender": "findrec", "text": "t", "image": "p", "width": 12, "heads": 2, "alignment": {"dim": 4}
}  # fmt: skip
HISTORIES = torch.tensor([[3, 1, 4, 1, 5, 9], [2, 7, 20, 0, 0, 0], [8, 6, 0, 0, 0, 0]])


def write_tables(folder: Path, without_both: bool = True) -> RunInputs:
    """Texts and pictures of almost all items."""
    rng = np.random.default_rng(0)
    lacking = {"t": {WITHOUT_TEXT}, "p": {WITHOUT_IMAGE}}
    for name, width in (("t", 6), ("p", 5)):
        items = np.array(
            [i for i in range(1, ITEMS + 1) if i not in lacking[name] and not (without_both and i == WITHOUT_BOTH)]
        )
        vectors = rng.normal(size=(ITEMS + 1, width)).astype(np.float32)
        write_item_table(folder / f"{name}.parquet", items, vectors[items])
    return RunInputs(tables={name: str(folder / f"{name}.parquet") for name in ("t", "p")})


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> RunInputs:
    return write_tables(tmp_path_factory.mktemp("findrec"))


def run_of(backbone: str = "sasrec", training: dict[str, Any] | None = None, **settings: Any) -> Run:
    shape: dict[str, Any] = {"dim": 16, "max_length": 12, "dropout": 0.1}
    config = {
        "datasets": {"x": {"source": "bazaar"}},
        "backbones": {
            **dict.fromkeys(("sasrec", "gru4rec", "bert4rec", "mamba"), shape),
            "single": {"kind": "gru4rec", "targets": "last", **shape},
        },
        "tables": {name: {"recipe": "vectors", "path": f"{name}.npy"} for name in ("t", "p")},
        "systems": {"s": {**SMALL, **settings}},
        "training": {
            "epochs": 4, "batch_tokens": 200, "learning_rate": 0.01, "device": "cpu", **(training or {})
        },
        "experiment": {"datasets": ["x"], "systems": ["s"], "backbones": [backbone], "seeds": [1]},
    }  # fmt: skip
    return Plan(load(config)).runs[0]


def build(inputs: RunInputs, backbone: str = "sasrec", missing: Missing | None = None, **settings: Any) -> FindRec:
    run = run_of(backbone, **settings)
    seed_step(1)
    read = inputs.model_copy(update={"missing": missing, "modalities": {"t": ["text"], "p": ["image"]}})
    model = recommender(run).build(run, read, POPULARITY)
    assert isinstance(model, FindRec)
    return model.eval()


def trained(run: Run, data: Path, inputs: RunInputs, folder: Path, validated: Path | None = None) -> Path:
    output = folder / "model.safetensors"
    train_run(run, data, inputs, output, folder / "state", validated=validated)
    return output


def curve(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.with_name("history.jsonl").read_text().splitlines()]


def learned(model: FindRec) -> FindRec:
    """As if training had met an item without anything."""
    with torch.no_grad():
        model.modalities.absent.add_(0.3)
    return model


# ---------------------------------------------------------------- bottleneck


def test_the_divergence_is_that_of_normal_laws() -> None:
    means, spreads = torch.randn(5, 3), torch.rand(5, 3) + 0.3
    laws = torch.distributions.Normal(means, spreads)
    expected = torch.distributions.kl_divergence(laws, torch.distributions.Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(divergence(means, 2 * spreads.log()), expected)


def test_draws_are_of_the_law_and_on_no_sphere() -> None:
    torch.manual_seed(0)
    bottleneck = Bottleneck(6, 4, 0.0).eval()
    one = torch.randn(1, 6)
    drawn, told = bottleneck(one.expand(20000, -1), torch.randn(20000, 4))
    mean, log_variance = bottleneck.layers(one)[0].chunk(2)
    torch.testing.assert_close(drawn.mean(0), mean, atol=0.05, rtol=0)
    torch.testing.assert_close(drawn.var(0), log_variance.exp(), atol=0.05, rtol=0.05)
    torch.testing.assert_close(told[:1], divergence(mean[None], log_variance[None]))
    assert drawn.norm(dim=1).std() > 0.1
    torch.testing.assert_close(bottleneck(one)[0][0], mean)


# ---------------------------------------------------------------- experts


def test_a_gate_weighs_what_is_there_and_nothing_else() -> None:
    torch.manual_seed(0)
    experts = Experts(6, 4, 5, 3, "context", 1.0, 0.0).eval()
    vectors, context = torch.randn(7, 2, 6), torch.randn(7, 4)
    available = torch.tensor([[True, True]] * 3 + [[True, False]] * 2 + [[False, True]] * 2)
    mixed = experts(vectors, available, context)
    torch.testing.assert_close(mixed.gates.sum((1, 2)), torch.ones(7))
    assert (mixed.gates[~available] == 0).all()
    expected = torch.zeros(7, 5)
    for row in range(7):
        for number in range(2):
            made = experts.make(vectors[row, number]).relu().view(3, 5)
            expected[row] += (mixed.gates[row, number, :, None] * made).sum(0)
    torch.testing.assert_close(mixed.vectors, expected)
    changed = torch.where(available[..., None], vectors, torch.full_like(vectors, 1e3))
    torch.testing.assert_close(experts(changed, available, context).vectors, mixed.vectors)
    other = experts(vectors, available, context + torch.randn(7, 4)).gates
    assert not torch.allclose(other, mixed.gates), "the context decides"


def test_a_row_without_anything_is_a_number() -> None:
    """The padding, where a history is empty."""
    experts = Experts(6, 4, 5, 3, "context", 1.0, 0.0).eval()
    mixed = experts(torch.zeros(1, 2, 6), torch.zeros(1, 2, dtype=torch.bool), torch.zeros(1, 4))
    assert mixed.vectors.isfinite().all()
    torch.testing.assert_close(mixed.gates.sum(), torch.tensor(1.0))


def test_alike_gates_are_the_mean_of_the_experts() -> None:
    experts = Experts(6, 4, 5, 3, "mean", 1.0, 0.0).eval()
    available = torch.tensor([[True, True], [True, False]])
    gates = experts(torch.randn(2, 2, 6), available, torch.randn(2, 4)).gates
    torch.testing.assert_close(gates[0], torch.full((2, 3), 1 / 6))
    torch.testing.assert_close(gates[1], torch.tensor([[1 / 3] * 3, [0.0] * 3]))


def test_the_balance_is_least_where_all_are_used_and_its_descent_leads_there() -> None:
    """The published term is the entropy itself, whose descent leads away."""
    even = torch.eye(4).repeat(10, 1)[:, None]
    use = use_of(even)
    assert float(use.balance) / 40 == pytest.approx(1)
    assert float(entropy_of(use.shares)) == pytest.approx(np.log(4))
    one = torch.eye(4)[:1].repeat(40, 1)[:, None]
    assert float(use_of(one).balance) / 40 == pytest.approx(4)
    torch.manual_seed(0)
    logits = (torch.randn(200, 4) * 0.1 + torch.tensor([1.0, 0, 0, 0])).requires_grad_()
    before = entropy_of(use_of(logits.softmax(1)[:, None]).shares)
    optimizer = torch.optim.Adam([logits], lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        (use_of(logits.softmax(1)[:, None]).balance / 200).backward()
        optimizer.step()
    after = entropy_of(use_of(logits.detach().softmax(1)[:, None]).shares)
    assert float(before) < 0.1
    assert float(after) > 1.0


# ---------------------------------------------------------------- what sees what


@pytest.mark.parametrize("backbone", ["sasrec", "gru4rec", "mamba"])
def test_what_is_trained_is_what_is_scored(backbone: str, inputs: RunInputs) -> None:
    """The loss of a batch is the cross-entropy of what each prefix alone is given: no position sees a later item."""
    model = learned(build(inputs, backbone))
    loss = model.losses(Histories.of(HISTORIES.numpy()), START)["recommendation"]
    total, count = 0.0, 0
    for row in HISTORIES.tolist():
        row = [item for item in row if item]
        for length in range(1, len(row)):
            scores = ask(as_scorer(model, CPU), np.array([row[:length]]))[0]
            total -= float(scores.log_softmax(0)[row[length] - 1])
            count += 1
    assert isinstance(loss.value, Tensor)
    assert float(loss.value.detach()) == pytest.approx(total, rel=1e-4)
    assert loss.targets == count


def test_items_are_compared_as_ids_plus_what_is_said_of_them(inputs: RunInputs) -> None:
    model = learned(build(inputs))
    vectors, available = model.modalities(torch.arange(ITEMS + 1)).vectors, model.modalities.available()
    scored = model.catalogue().scored
    torch.testing.assert_close(scored[0], model.items.weight[0])
    for item in (1, WITHOUT_TEXT, WITHOUT_IMAGE, WITHOUT_BOTH):
        said = [
            layer(torch.nn.functional.normalize(vectors[item, number], dim=0) * 12**0.5)
            for number, layer in enumerate(model.content)
            if available[item, number]
        ]
        torch.testing.assert_close(scored[item], model.items.weight[item] + torch.stack(said).mean(0))
    plain = build(inputs, scoring="ids")
    assert torch.equal(plain.catalogue().scored, plain.items.weight)


def test_a_history_is_read_alike_beside_longer_ones(inputs: RunInputs) -> None:
    scorer = as_scorer(learned(build(inputs)), CPU)
    together = ask(scorer, HISTORIES.numpy(), (HISTORIES > 0).sum(1).numpy())
    for row, wanted in zip(HISTORIES.tolist(), together, strict=True):
        alone = ask(scorer, np.array([[item for item in row if item]]))[0]
        torch.testing.assert_close(alone, wanted, rtol=1e-4, atol=1e-5)


def test_modalities_read_each_other_and_each_subspace_for_itself(inputs: RunInputs) -> None:
    model = build(inputs)
    vectors = torch.randn(1, 3, 2, 12)
    visible = torch.ones(1, 3, 3, 2, dtype=torch.bool)
    plain = model.exchange(vectors, vectors, visible)
    assert plain.shape == (1, 3, 2, 2, 6)
    changed = vectors.clone()
    changed[:, 0, 1] += 1
    other = model.exchange(changed, changed, visible)
    assert not torch.allclose(other[:, 2, 0], plain[:, 2, 0]), "text reads an earlier picture"
    torch.testing.assert_close(other[:, 2, 1], plain[:, 2, 1]), "a picture does not read other pictures"
    attention = model.exchange.reads[0]
    wanted = torch.nn.functional.scaled_dot_product_attention(
        attention.project_query(vectors[:, :, 0])[..., 6:],
        *(part[..., 6:] for part in attention.project_keys(vectors[:, :, 1]).chunk(2, 2)),
    )
    own = vectors[:, :, 0, 6:] + wanted
    torch.testing.assert_close(plain[:, :, 0, 1], model.exchange.norm(own))


# ---------------------------------------------------------------- what is missing


def test_what_an_item_lacks_is_read_by_nobody(inputs: RunInputs) -> None:
    """Whatever stands in a table's row that is not there, and in that of the padding, changes nothing."""
    model = learned(build(inputs))
    before = ask(as_scorer(model, CPU), HISTORIES.numpy(), (HISTORIES > 0).sum(1).numpy())
    for name, lacking in (("text", [0, WITHOUT_TEXT, WITHOUT_BOTH]), ("image", [0, WITHOUT_IMAGE, WITHOUT_BOTH])):
        model.modalities.get_buffer(f"table_{name}")[lacking] = 100.0
    after = ask(as_scorer(model, CPU), HISTORIES.numpy(), (HISTORIES > 0).sum(1).numpy())
    torch.testing.assert_close(after, before)
    available = model.modalities.available()
    assert available[WITHOUT_TEXT].tolist() == [False, True]
    assert available[WITHOUT_IMAGE].tolist() == [True, False]
    assert available[WITHOUT_BOTH].tolist() == [True, True], "a learned vector a modality"
    assert available[0].tolist() == [False, False]


def test_an_item_without_anything_has_the_learned_vectors(inputs: RunInputs, tmp_path: Path) -> None:
    model = learned(build(inputs))
    item = torch.tensor([WITHOUT_BOTH])
    torch.testing.assert_close(model.modalities(item).vectors[0], model.modalities.absent)
    before = ask(as_scorer(model, CPU), np.array([[WITHOUT_BOTH]]))
    with torch.no_grad():
        model.modalities.absent[0] *= -3
    assert not torch.allclose(ask(as_scorer(model, CPU), np.array([[WITHOUT_BOTH]])), before)
    # never learned: the mean of all rows stands there when the run is judged
    met = build(write_tables(tmp_path, without_both=False), missing=Missing(image=1.0, text=1.0, when="test"))
    vectors = met.modalities(item).vectors[0]
    for number, name in enumerate(("text", "image")):  # with nothing left it is the mean of what training met
        rows = met.modalities.get_buffer(f"table_{name}")[met.modalities.present[name].present]  # type: ignore[union-attr]
        torch.testing.assert_close(vectors[number], met.modalities.bottlenecks[name](rows)[0].mean(0))
    half = build(write_tables(tmp_path, without_both=False), missing=Missing(image=0.7, text=0.7, when="test"))
    known = half.modalities.known()
    gone = (~known.any(1)).nonzero()[1:, 0]
    assert len(gone) > 2
    stands = half.modalities(gone).vectors
    for number, name in enumerate(("text", "image")):
        rows = half.modalities.get_buffer(f"table_{name}")[known[:, number]]
        mean = half.modalities.bottlenecks[name](rows)[0].mean(0)
        torch.testing.assert_close(stands[:, number], mean.expand(len(gone), -1))
    half.train()
    assert half.modalities.known().any(1)[1:].all(), "training has lost nothing"


@pytest.mark.parametrize(
    "missing", [{"image": 0.5}, {"image": 1.0}, {"image": 1.0, "text": 1.0}, {"text": 0.5, "when": "test"}]
)
def test_lost_pictures_and_texts_train_and_are_judged(
    missing: dict[str, Any], data: Path, inputs: RunInputs, tmp_path: Path
) -> None:
    run = run_of(training={"epochs": 1})
    lost = Missing.model_validate(missing)
    run = run.model_copy(update={"missing": lost, "modalities": {"t": ["text"], "p": ["image"]}})
    output = trained(run, data, inputs, tmp_path)
    assert all(bool(torch.isfinite(value).all()) for value in read_tensors(output).values())
    read = inputs.under(run)
    seed_step(1)
    model = recommender(run).build(run, read, POPULARITY)
    model.load_state_dict(read_tensors(output))
    assert torch.isfinite(ask(as_scorer(model, CPU), np.array([[7, 5, 9]]))).all()


@pytest.mark.parametrize("kept", [{"image": None}, {"text": None}])
def test_one_modality_is_enough(kept: dict[str, Any], data: Path, inputs: RunInputs, tmp_path: Path) -> None:
    output = trained(run_of(training={"epochs": 2}, **kept), data, inputs, tmp_path)
    assert curve(output)[-1]["NDCG@10"] > 0
    assert not [name for name in read_tensors(output) if "reads" in name]


# ---------------------------------------------------------------- two optimisers in turn


def snapshot(model: FindRec) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def engine_of(model: FindRec, run: Run, data: Path, folder: Path) -> Engine:
    program = model.program(run, training_histories(load_dataset(data)), None)
    return Engine(model, program, run.training, 1, folder, Machine(run.training))


def test_neither_update_moves_what_is_the_others(
    data: Path, inputs: RunInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(training={"epochs": 1})
    model = build(inputs)
    engine = engine_of(model, run, data, tmp_path)
    update = Engine._update
    moves: list[tuple[str, set[str]]] = []

    def watched(self: Engine, phase: Any, asked: Any) -> None:
        before = snapshot(model)
        update(self, phase, asked)
        after = snapshot(model)
        moves.append((asked.optimizer, {name for name in before if not torch.equal(before[name], after[name])}))

    monkeypatch.setattr(Engine, "_update", watched)
    engine.fit()
    score = {name for name, _ in model.named_parameters() if ".score." in name}
    assert len(score) == 6
    assert [name for name, _ in moves[:4]] == ["model", "score", "model", "score"]
    assert set.union(*(moved for name, moved in moves if name == "model")) == set(snapshot(model)) - score
    assert set.union(*(moved for name, moved in moves if name == "score")) == score


def test_neither_loss_reaches_the_id_stream(inputs: RunInputs) -> None:
    """Modalities are drawn to it, it is not drawn to them; and the projection of its states is nobody's to move."""
    for estimator in ("ksd", "mmd"):
        model = build(inputs, alignment={"estimator": estimator}).train()
        losses = model.losses(Histories.of(HISTORIES.numpy()), START)
        losses["alignment"].value.backward()
        reached = {name for name, value in model.named_parameters() if value.grad is not None and value.grad.any()}
        assert not [name for name in reached if name.startswith(("items", "backbone", "experts", "exchange"))]
        assert {"modalities.bottlenecks.text.layers.0.weight", "alignment.maps.0.weight"} <= reached
        if estimator == "ksd":
            model.zero_grad()
            model._score_losses()["score"].value.backward()
            assert {n.split(".")[1] for n, v in model.named_parameters() if v.grad is not None and v.grad.any()} == {
                "score"
            }
        assert not model.alignment.projection.requires_grad


def test_the_score_network_learns_the_states_while_the_rest_trains(
    data: Path, inputs: RunInputs, tmp_path: Path
) -> None:
    rows = curve(trained(run_of(training={"epochs": 12, "patience": 12}), data, inputs, tmp_path))
    assert rows[0]["score_matching"] > rows[-1]["score_matching"]
    assert {"recommendation", "alignment", "bottleneck", "divergence", "balance", "gate_entropy", "use_entropy"} <= set(
        rows[0]
    )
    assert sum(rows[-1][f"expert_{number}"] for number in range(1, 5)) == pytest.approx(1, abs=1e-4)
    assert 0 <= rows[-1]["use_entropy"] <= np.log(4) + 1e-6


@pytest.mark.parametrize(
    ("settings", "gone"),
    [
        ({"alignment": None}, {"alignment", "score_matching"}),
        ({"alignment": {"estimator": "mmd"}}, {"score_matching"}),
        ({"bottleneck": None}, {"bottleneck", "divergence"}),
        ({"bottleneck": {"weight": 0.0}}, {"bottleneck"}),
        ({"gate": "mean"}, {"balance", "use_entropy"}),
        ({"balance": 0.0}, {"balance"}),
        ({"heads": 1}, set()),
        ({"scoring": "ids"}, set()),
        ({"experts": 1}, {"balance", "use_entropy"}),
        ({"alignment": None, "bottleneck": None}, {"alignment", "bottleneck", "divergence", "score_matching"}),
    ],
)
def test_parts_can_be_switched_off(
    settings: dict[str, Any], gone: set[str], data: Path, inputs: RunInputs, tmp_path: Path
) -> None:
    row = curve(trained(run_of(training={"epochs": 1}, **settings), data, inputs, tmp_path))[-1]
    whole = {"alignment", "bottleneck", "divergence", "balance", "use_entropy", "score_matching"}
    assert set(row) & whole == whole - gone


# ---------------------------------------------------------------- training as a whole


@pytest.mark.parametrize("backbone", ["sasrec", "gru4rec", "mamba"])
def test_it_learns_a_pattern_and_is_judged(backbone: str, data: Path, inputs: RunInputs, tmp_path: Path) -> None:
    run = run_of(backbone, training={"epochs": 14, "patience": 14, "learning_rate": 0.02})
    output = trained(run, data, inputs, tmp_path)
    judged = evaluate_run(run, Evaluation(), output, data, inputs, None, tmp_path / "e", tmp_path / "m.json")
    assert judged["metrics"]["Hit@5"] > 0.4  # by chance a sixth


@pytest.mark.parametrize("after", [1, 9])
def test_a_stop_changes_nothing(after: int, data: Path, inputs: RunInputs, tmp_path: Path) -> None:
    run = run_of(training={"epochs": 2, "batch_tokens": 250, "checkpoint_seconds": 0.0})
    expected = trained(run, data, inputs, tmp_path / "whole")
    with stopped_after(after):
        trained(run, data, inputs, tmp_path / "stopped")
    assert list((tmp_path / "stopped/state").rglob("checkpoint.safetensors"))
    again = trained(run, data, inputs, tmp_path / "stopped")
    assert again.read_bytes() == expected.read_bytes()


# ---------------------------------------------------------------- what may be wrong


def test_a_modality_that_says_the_same_of_all_is_told_and_trains(
    data: Path, inputs: RunInputs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "p.parquet"
    write_item_table(path, np.arange(1, ITEMS + 1), np.full((ITEMS, 4), 0.1, np.float32))
    read = RunInputs(tables={**inputs.tables, "p": str(path)})
    output = trained(run_of(training={"epochs": 2}), data, read, tmp_path / "run")
    assert "the table 'p' says the same of every item" in caplog.text
    assert all(bool(torch.isfinite(value).all()) for value in read_tensors(output).values())


def test_a_table_without_a_row_is_told(inputs: RunInputs, tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    write_item_table(path, np.array([], np.int32), np.zeros((0, 4), np.float32))
    with pytest.raises(ArtifactError, match=r"p\.parquet: has no vector of any item of this dataset"):
        build(RunInputs(tables={**inputs.tables, "p": str(path)}))


@pytest.mark.parametrize("backbone", ["sasrec", "gru4rec", "mamba"])
def test_a_user_with_one_item_is_scored(backbone: str, inputs: RunInputs) -> None:
    for item in (7, WITHOUT_BOTH, WITHOUT_IMAGE):
        assert torch.isfinite(ask(as_scorer(build(inputs, backbone), CPU), np.array([[item]]))).all()


def test_a_batch_of_one_item_has_nothing_to_compare(inputs: RunInputs) -> None:
    model = build(inputs).train()
    losses = model.losses(Histories.of(np.array([[WITHOUT_BOTH, WITHOUT_BOTH]])), START)
    losses["alignment"].value.backward()
    assert float(losses["alignment"].value.detach()) == 0
    assert torch.isfinite(model._score_losses()["score"].value)


def test_a_backbone_of_single_targets_is_trained_at_every_position_here(inputs: RunInputs) -> None:
    """Its windows were batched and counted as if they had one target each."""
    histories = TrainingHistories(np.array([0, 6, 9]), np.arange(1, 10, dtype=np.int32))
    model = build(inputs, "single")
    batches = model.batches(run_of("single"), histories)
    (rows,) = batches.plan(1, 1)
    targets = model.losses(batches.batch(rows), START)["recommendation"].targets
    assert targets is not None
    assert batches.targets == int(targets) == 7


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"text": None, "image": None}, "needs a table: text or image, one at least"),
        ({"text": "tt"}, "did you mean 't'"),
        ({"heads": 5}, "heads: 5 does not divide width 12"),
        ({"alignment": {"dim": 32}}, "alignment.dim: 32 is wider than the states of 'sasrec'"),
        ({"alignment": {"estimator": "stein"}}, "alignment.estimator"),
        ({"backbones": ["bert4rec"]}, "'bert4rec' looks both ways along a history"),
        ({"experts": 0}, "experts"),
        ({"beta": 1}, "unknown key 'beta'"),
    ],
)
def test_wrong_settings_are_told(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        run_of(**settings)


def test_every_table_of_results_says_that_it_is_a_reconstruction() -> None:
    assert run_of().remarks == ["a reconstruction: its own code was not to be had"]
