"""CIDer-style robustness: the sampler in a step, what distils, causality, the counterfactual, the run as a whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from asking import START
from pattern import ITEMS
from torch import Tensor

from tessera.artifacts.models import read_tensors
from tessera.artifacts.sequences import write_item_sequences
from tessera.artifacts.tables import write_item_table
from tessera.evaluation.histories import Histories
from tessera.plan.graph import Plan
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.robustness import Maps, attention_divergence, really_there
from tessera.recommenders.systems.base import recommender
from tessera.recommenders.systems.cider import CIDer
from tessera.recommenders.train import train_run
from tessera.settings.config import load
from tessera.settings.runs import Run
from tessera.training.losses import Losses
from tessera.training.machine import seed_step
from tessera.training.phases import Position

WITHOUT_TEXT, WITHOUT_IMAGE, WITHOUT_BOTH = 5, 9, 7
POPULARITY = np.arange(ITEMS + 1)
DUAL: dict[str, Any] = {
    "kind": "dual_view", "image": "p", "text": "t", "fine": "f", "width": 8, "adapter": [8], "alignment": None
}  # fmt: skip
PLAIN: dict[str, Any] = {"popularity": None, "counterfactual": None}
NOTHING = dict.fromkeys(("recommendation", "representation", "attention", "reconstruction", "scores"), 0.0)  # fmt: skip
ROWS = np.array([[3, 1, 4, 1, 5, 9], [2, 7, 20, 6, 0, 0], [8, 6, 11, 0, 0, 0]])


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> RunInputs:
    """Texts, pictures and attributes of almost all items."""
    folder = tmp_path_factory.mktemp("cider")
    rng = np.random.default_rng(0)
    lacking = {"t": {WITHOUT_TEXT, WITHOUT_BOTH}, "p": {WITHOUT_IMAGE, WITHOUT_BOTH}, "f": {WITHOUT_TEXT, WITHOUT_BOTH}}
    angle = 2 * np.pi * np.arange(ITEMS + 1) / ITEMS
    circle = np.stack([np.cos(angle), np.sin(angle), np.cos(2 * angle)], 1)
    for name in ("t", "p", "f"):
        items = np.array([i for i in range(1, ITEMS + 1) if i not in lacking[name]])
        rows = (circle @ rng.normal(size=(3, 6))).astype(np.float32)[items]
        path = folder / f"{name}.parquet"
        if name == "f":
            write_item_sequences(path, np.repeat(items, 2), ["a", "b"] * len(items), np.repeat(rows + 0.1, 2, 0))
        else:
            write_item_table(path, items, rows)
    return RunInputs(tables={name: str(folder / f"{name}.parquet") for name in ("t", "p", "f")})


def config_of(backbone: str = "sasrec", training: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    shape: dict[str, Any] = {"dim": 16, "max_length": 12, "dropout": 0.1}
    system = {"recommender": "cider", "items": DUAL, **settings}
    return {
        "datasets": {"x": {"source": "bazaar"}},
        "backbones": dict.fromkeys(("sasrec", "gru4rec", "bert4rec", "mamba"), shape),
        "tables": {
            "t": {"recipe": "vectors", "path": "t.npy", "made_from": ["text"]},
            "p": {"recipe": "vectors", "path": "p.npy", "made_from": ["image"]},
            "n": {"recipe": "vectors", "path": "n.npy"},
            "f": {"recipe": "attributes", "model": "small"},
        },
        "systems": {"s": {name: value for name, value in system.items() if value is not ...}},
        "training": {"epochs": 4, "batch_tokens": 200, "learning_rate": 0.01, "device": "cpu", **(training or {})},
        "experiment": {"datasets": ["x"], "systems": ["s"], "backbones": [backbone], "seeds": [1]},
    }  # fmt: skip


def run_of(backbone: str = "sasrec", training: dict[str, Any] | None = None, **settings: Any) -> Run:
    return Plan(load(config_of(backbone, training, **settings))).runs[0]


def without_dropout(run: Run) -> Run:
    assert run.backbone is not None
    return run.model_copy(update={"backbone": run.backbone.model_copy(update={"dropout": 0.0})})


def build(inputs: RunInputs, backbone: str = "sasrec", dropout: bool = False, **settings: Any) -> CIDer:
    """An untrained one, weights at a scale where differences show."""
    run = run_of(backbone, **settings)
    run = run if dropout else without_dropout(run)
    seed_step(1)
    model = recommender(run).build(run, inputs.under(run), POPULARITY)
    assert isinstance(model, CIDer)
    with torch.no_grad():
        for part in model.items.parameters():
            part.add_(torch.randn_like(part) * 0.3)
    return model


def losses(model: CIDer, rows: np.ndarray = ROWS, at: Position = START) -> Losses:
    seed_step(3)
    return model.losses(Histories.of(rows), at)


def trained(run: Run, data: Path, inputs: RunInputs, folder: Path, validated: Path | None = None) -> Path:
    output = folder / "model.safetensors"
    train_run(run, data, inputs, output, folder / "state", validated=validated)
    return output


def curve(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.with_name("history.jsonl").read_text().splitlines()]


# ---------------------------------------------------------------- what is taken away


def test_a_step_takes_away_what_is_there_and_leaves_something(inputs: RunInputs) -> None:
    model = build(inputs, damage={"rate": 0.9, "pattern": "feature"})
    views = list(model.items.views().values())
    available = really_there(views, model.of_view, model.modalities)
    assert model.modalities == ("image", "text")
    assert available[WITHOUT_TEXT].tolist() == [True, False]
    assert available[WITHOUT_BOTH].tolist() == available[0].tolist() == [False, False]
    rows = torch.randint(1, ITEMS + 1, (200, 12), generator=torch.Generator().manual_seed(0))
    rows[::3, 7:] = 0
    states = model.sampler.positions(rows, available, START, torch.arange(200))
    whole = available[rows].all(-1)
    assert set(states[whole].tolist()) == {0, 1, 2}, "an item keeps one of its modalities"
    assert set(states[~whole].tolist()) == {0}, "of one, it keeps that one; of none, nothing is taken"
    # of those that would lose both, either stays equally often
    assert abs(float((states[whole] == 1).float().mean()) - float((states[whole] == 2).float().mean())) < 0.06
    scored = model.sampler.candidates(available, START)
    assert scored[0] == scored[WITHOUT_BOTH] == 0
    with_ids = build(inputs, items={"table": "t", "id_residual": True}, damage={"rate": 0.9, "pattern": "feature"})
    there = really_there(list(with_ids.items.views().values()), with_ids.of_view, with_ids.modalities)
    alone = with_ids.sampler.positions(rows, there, START, torch.arange(200))
    assert float((alone[there[rows].all(-1)] == 1).float().mean()) == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize("pattern", ["feature", "item_consistent", "whole_modality", "block", "one_modality"])
def test_what_is_taken_depends_on_the_place_in_the_step_alone(pattern: str, inputs: RunInputs) -> None:
    """Two processes hold every other row, padded to lengths of their own, and draw what one would."""
    model = build(inputs, damage={"pattern": pattern, "concentration": 2.0})
    available = really_there(list(model.items.views().values()), model.of_view, model.modalities)
    rows = torch.from_numpy(np.random.default_rng(0).integers(1, ITEMS + 1, (6, 9)))
    rows[1::2, 5:] = 0
    at = Position(2, 5, 11, 0.1, {})
    whole = model.sampler.positions(rows, available, at, torch.arange(6))
    second = model.sampler.positions(rows[1::2, :5], available, at, torch.tensor([1, 3, 5]))
    assert torch.equal(whole[1::2, :5], second)
    assert (whole[1::2, 5:] == 0).all()
    other = [model.sampler.positions(rows, available, Position(2, 6, 12, 0.1, {}), torch.arange(6)) for _ in range(2)]
    assert torch.equal(*other)
    assert whole.any()


# ---------------------------------------------------------------- sharing


@pytest.mark.parametrize(
    "items",
    [
        DUAL, {**DUAL, "fusion": "concat"}, {**DUAL, "direction": "fine"}, {**DUAL, "dropout": 0.4},
        {"table": "t"}, {"table": "t", "id_residual": True, "dropout": 0.3},
    ],
)  # fmt: skip
def test_what_is_shared_between_states_changes_nothing(items: dict[str, Any], inputs: RunInputs) -> None:
    """Item vectors under each loss, values and gradients, are those of an encoder that has lost those rows."""
    model = build(inputs, items=items)
    encoder = model.items.double().train()
    away = [model._away(number) for number in range(2 ** len(model.modalities))]
    together = encoder.under(away, seed=5)
    weights = torch.randn(len(away), ITEMS + 1, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gradients = torch.autograd.grad((torch.stack(together) * weights).sum(), list(encoder.parameters()))
    assert not any(view.present.away for view in encoder.views().values())
    apart = []
    for names in away:
        for name, view in encoder.views().items():
            view.present.away = name in names
        torch.manual_seed(5)
        apart.append(encoder())
        for view in encoder.views().values():
            view.present.away = False
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other)
    wanted = torch.autograd.grad((torch.stack(apart) * weights).sum(), list(encoder.parameters()))
    torch.testing.assert_close(gradients, wanted)
    assert torch.equal(encoder.under([()], seed=5)[0], together[0])


def test_projections_are_made_once_a_step(inputs: RunInputs, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(inputs, damage={"pattern": "feature", "rate": 0.5})
    calls: list[str] = []
    for name, part in [*model.items.project.items(), ("values", model.items.fine.project)]:
        part.register_forward_hook(lambda *_, name=name: calls.append(name))
    losses(model)
    assert sorted(calls) == ["image", "text", "values"]


# ---------------------------------------------------------------- distillation


@pytest.mark.parametrize("backbone", ["sasrec", "gru4rec", "mamba"])
@pytest.mark.parametrize("dropout", [False, True])
def test_without_damage_nothing_is_distilled(backbone: str, dropout: bool, inputs: RunInputs) -> None:
    """Exactly zero: both passes are the same numbers, for layers drop the same in both."""
    model = build(inputs, backbone, dropout, damage={"rate": 0.0}).train()
    terms = losses(model)
    assert ("attention" in terms) == (backbone == "sasrec")
    for name in {"representation", "attention", "scores", "reconstruction"} & set(terms):
        assert float(terms[name].value.detach()) == 0, name
    assert float(terms["damaged"].value.detach()) == float(terms["recommendation"].value.detach())
    damaged = losses(build(inputs, backbone, dropout, damage={"rate": 0.6, "pattern": "feature"}).train())
    for name in {"representation", "attention", "scores", "reconstruction"} & set(terms):
        assert float(damaged[name].value.detach()) > 0, name


def test_padding_changes_no_loss(inputs: RunInputs) -> None:
    model = build(inputs, damage={"pattern": "feature", "rate": 0.5})
    longer = np.pad(ROWS, ((0, 0), (0, 5)))
    for name, term in losses(model).items():
        other = losses(model, longer)[name]
        torch.testing.assert_close(other.value, term.value, msg=name)
        assert float(other.targets) == float(term.targets), name


def test_losses_are_those_of_two_passes_by_hand(inputs: RunInputs) -> None:
    """Every position of all windows is in each of them."""
    model = build(inputs, damage={"pattern": "feature", "rate": 0.5}, **PLAIN).double()
    terms = losses(model)
    histories = torch.from_numpy(ROWS)
    views = list(model.items.views().values())
    available = really_there(views, model.of_view, model.modalities)
    states = model.sampler.positions(histories, available, START, torch.arange(len(ROWS)))
    scored = model.sampler.candidates(available, START)
    tables = torch.stack(model.items.under([model._away(number) for number in range(4)]))
    whole, candidates = tables[0], tables[scored, torch.arange(ITEMS + 1)]
    sums = dict.fromkeys(("recommendation", "damaged", "representation", "scores", "reconstruction"), 0.0)
    count = asked = 0
    for row, state in zip(histories.tolist(), states, strict=True):
        real = [item for item in row if item]
        for place in range(len(real) - 1):
            prefix, lost = torch.tensor(real[: place + 1]), state[: place + 1]
            one = torch.ones(1, dtype=torch.long) * (place + 1)
            ids = torch.arange(1, place + 2)[None]
            h_t, h_s = (
                model.backbone.encode(ids, one, torch.cat([torch.zeros(1, 16), own]).double())[0]
                for own in (whole[prefix], tables[lost, prefix])
            )
            target = real[place + 1] - 1
            z_t, z_s = whole[1:] @ h_t, candidates[1:] @ h_s
            sums["recommendation"] -= float(z_t.log_softmax(0)[target])
            sums["damaged"] -= float(z_s.log_softmax(0)[target])
            sums["representation"] += 0.3 * (1 - float(F.cosine_similarity(h_t, h_s, 0)))
            soft = F.kl_div((z_s / 2).log_softmax(0), (z_t / 2).softmax(0), reduction="sum")
            sums["scores"] += 0.1 * 4 * float(soft)
            count += 1
            for number, (view, made_of) in enumerate(zip(views, model.of_view, strict=True)):
                gone = any(int(lost[-1]) >> model.modalities.index(name) & 1 for name in made_of)
                there = view.present()[prefix[-1]]
                if gone and bool(there.any()):
                    said = model.reconstruction.heads[number](h_s)
                    sums["reconstruction"] += 0.1 * float(F.smooth_l1_loss(said, view.rows(prefix[-1:])[0]))
                    asked += 1
    for name, wanted in sums.items():
        assert float(terms[name].value.detach()) == pytest.approx(wanted, rel=1e-4, abs=1e-6), name
    assert asked > 3
    assert float(terms["reconstruction"].targets) == asked
    assert float(terms["recommendation"].targets) == float(terms["representation"].targets) == count


def test_attention_is_compared_over_what_each_position_sees() -> None:
    generator = torch.Generator().manual_seed(0)
    own, wanted = Maps(), Maps()
    own.logits.append(torch.randn(2, 3, 4, 4, generator=generator))
    wanted.logits.append(torch.randn(2, 3, 4, 4, generator=generator))
    real = torch.tensor([[True] * 4, [True, True, False, False]])
    total, count = attention_divergence(own, wanted, real)
    expected = 0.0
    for row, length in ((0, 4), (1, 2)):
        for head in range(3):
            for query in range(length):
                p, q = (maps.logits[0][row, head, query, : query + 1].log_softmax(0) for maps in (wanted, own))
                expected += float(F.kl_div(q, p, reduction="sum", log_target=True)) / 3
    assert float(total) == pytest.approx(expected, rel=1e-5)
    assert float(count) == 6


def test_the_whole_pass_gets_no_gradient_from_what_it_teaches(inputs: RunInputs) -> None:
    """The gradient of each loss that teaches is the same when all that the whole pass made is a constant."""
    model = build(inputs, damage={"pattern": "feature", "rate": 0.5}, **PLAIN)
    parameters = [part for part in model.parameters() if part.requires_grad]

    def gradient(name: str) -> list[Tensor]:
        found = torch.autograd.grad(losses(model)[name].value, parameters, allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]

    names = ("representation", "attention", "scores")
    free = {name: gradient(name) for name in names}
    examples = type(model.backbone).examples
    passes: list[int] = []

    def constant(self: Any, histories: Tensor, vectors: Tensor, drawn: Tensor | None = None) -> Any:
        passes.append(1)
        if len(passes) % 2:  # the whole pass comes first
            with torch.no_grad():
                return examples(self, histories, vectors, drawn)
        return examples(self, histories, vectors, drawn)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model.backbone), "examples", constant)
        for name in names:
            for one, other in zip(free[name], gradient(name), strict=True):
                torch.testing.assert_close(one, other)
    assert all(any(bool(part.any()) for part in free[name]) for name in names)


def test_no_weight_and_no_causal_part_is_the_plain_system(data: Path, inputs: RunInputs, tmp_path: Path) -> None:
    cider = trained(run_of(distillation=NOTHING, **PLAIN), data, inputs, tmp_path / "cider")
    plain = trained(run_of(recommender=...), data, inputs, tmp_path / "plain")
    found, wanted = read_tensors(cider), read_tensors(plain)
    assert set(found) - set(wanted) == {"tau", "tried", "kept"}
    for name, value in wanted.items():
        assert torch.equal(found[name], value), name
    assert [row["NDCG@10"] for row in curve(cider)] == [row["NDCG@10"] for row in curve(plain)]
