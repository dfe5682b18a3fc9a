"""CIDer-style robustness: the sampler in a step, what distils, causality, the counterfactual, the run as a whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from asking import CPU, START, ask
from pattern import ITEMS
from stopped_training import stopped_after
from torch import Tensor

from tessera.artifacts.files import read_json
from tessera.artifacts.models import read_tensors
from tessera.artifacts.sequences import write_item_sequences
from tessera.artifacts.tables import ArtifactError, write_item_table
from tessera.data.dataset import load_dataset
from tessera.evaluation.histories import Histories
from tessera.plan.graph import Plan
from tessera.recommenders.debiasing import BinAdjustment, LogitAdjustment, shortcuts
from tessera.recommenders.evaluate import evaluate_run
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.robustness import Maps, attention_divergence
from tessera.recommenders.systems.base import TrainingHistories, as_scorer, recommender
from tessera.recommenders.systems.cider import CIDer
from tessera.recommenders.train import train_run, training_histories
from tessera.settings.base import ConfigError
from tessera.settings.config import load
from tessera.settings.evaluation import Evaluation
from tessera.settings.missing import Missing
from tessera.settings.runs import Run
from tessera.settings.systems.cider import Counterfactual, Popularity
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
    damaged = settings.get("distillation") != NOTHING and system["recommender"] == "cider"
    if isinstance(system.get("damage", {}), dict) and damaged:  # all histories, but where told
        system["damage"] = {"histories": 1.0, **system.get("damage", {})}
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


def vectors_under(model: CIDer, number: int) -> Tensor:
    """(items + 1, dim) of items that are all in one state."""
    with model.items.without(model.damaged.away(number)):
        made: Tensor = model.items()
    return made


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
    available = model.damaged.available()
    assert model.damaged.modalities == ("image", "text")
    assert available[WITHOUT_TEXT].tolist() == [True, False]
    assert available[WITHOUT_BOTH].tolist() == available[0].tolist() == [False, False]
    rows = torch.randint(1, ITEMS + 1, (200, 12), generator=torch.Generator().manual_seed(0))
    rows[::3, 7:] = 0
    states = model.damaged.sampler.positions(rows, available, START, torch.arange(200))
    whole = available[rows].all(-1)
    assert set(states[whole].tolist()) == {0, 1, 2}, "an item keeps one of its modalities"
    assert set(states[~whole].tolist()) == {0}, "of one, it keeps that one; of none, nothing is taken"
    # of those that would lose both, either stays equally often
    assert abs(float((states[whole] == 1).float().mean()) - float((states[whole] == 2).float().mean())) < 0.06
    scored = model.damaged.sampler.candidates(available, START)
    assert scored[0] == scored[WITHOUT_BOTH] == 0
    with_ids = build(inputs, items={"table": "t", "id_residual": True}, damage={"rate": 0.9, "pattern": "feature"})
    there = with_ids.damaged.available()
    alone = with_ids.damaged.sampler.positions(rows, there, START, torch.arange(200))
    assert float((alone[there[rows].all(-1)] == 1).float().mean()) == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize("pattern", ["feature", "item_consistent", "whole_modality", "block", "one_modality"])
def test_what_is_taken_depends_on_the_place_in_the_step_alone(pattern: str, inputs: RunInputs) -> None:
    """Two processes hold every other row, padded to lengths of their own, and draw what one would."""
    model = build(inputs, damage={"pattern": pattern, "concentration": 2.0})
    available = model.damaged.available()
    rows = torch.from_numpy(np.random.default_rng(0).integers(1, ITEMS + 1, (6, 9)))
    rows[1::2, 5:] = 0
    at = Position(2, 5, 11, 0.1, {})
    whole = model.damaged.sampler.positions(rows, available, at, torch.arange(6))
    second = model.damaged.sampler.positions(rows[1::2, :5], available, at, torch.tensor([1, 3, 5]))
    assert torch.equal(whole[1::2, :5], second)
    assert (whole[1::2, 5:] == 0).all()
    other = [
        model.damaged.sampler.positions(rows, available, Position(2, 6, 12, 0.1, {}), torch.arange(6)) for _ in range(2)
    ]
    assert torch.equal(*other)
    assert whole.any()


# ---------------------------------------------------------------- sharing


@pytest.mark.parametrize(
    "items",
    [
        DUAL, {**DUAL, "fusion": "concat"}, {**DUAL, "direction": "fine"}, {**DUAL, "image": None, "both": None},
        {**DUAL, "axis": "sequence"}, {**DUAL, "combine": "gated_sum", "direction": "coarse"},
        {"table": "t"}, {"table": "t", "id_residual": True},
    ],
)  # fmt: skip
def test_what_is_shared_between_states_changes_nothing(items: dict[str, Any], inputs: RunInputs) -> None:
    """Vectors of some items under each loss, values and gradients, are those of all items that have lost those rows."""
    model = build(inputs, items=items)
    encoder = model.items.double().train()
    away = [model.damaged.away(number) for number in range(2 ** len(model.damaged.modalities))]
    chosen = [torch.tensor([WITHOUT_BOTH, 2, WITHOUT_TEXT, WITHOUT_IMAGE, 30]), torch.tensor([11]), torch.arange(1, 9)]
    chosen = [chosen[number % 3] for number in range(len(away))]
    weights = [torch.randn(len(own), 16, dtype=torch.float64) for own in chosen]

    def gradients(made: list[Tensor]) -> list[Tensor]:
        summed = sum((own * weight).sum() for own, weight in zip(made, weights, strict=True))
        found = torch.autograd.grad(summed, list(encoder.parameters()), allow_unused=True)
        return [torch.zeros(1) if one is None else one for one in found]

    together = []
    with encoder.sharing():
        encoder()
        for names, own in zip(away, chosen, strict=True):
            with encoder.without(names):
                together.append(encoder.some(own))
    assert not any(view.present.away for view in encoder.views().values())
    assert encoder.shared is None
    apart = []
    for names, own in zip(away, chosen, strict=True):
        with encoder.without(names):
            apart.append(encoder()[own])
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other)
    for one, other in zip(gradients(together), gradients(apart), strict=True):
        torch.testing.assert_close(one, other)


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
    model = build(inputs, damage={"pattern": "feature", "rate": 0.5, "candidates": 0.6}, **PLAIN).double()
    terms = losses(model)
    histories = torch.from_numpy(ROWS)
    available = model.damaged.available()
    states = model.damaged.sampler.positions(histories, available, START, torch.arange(len(ROWS)))
    scored = model.damaged.sampler.candidates(available, START)
    tables = torch.stack([vectors_under(model, number) for number in range(4)])
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
                model.backbone.encode(ids, one, torch.cat([torch.zeros(1, 16), own]).double())[0].detach()
                for own in (whole[prefix], tables[lost, prefix])
            )
            target = real[place + 1] - 1
            z_t, z_s = whole[1:].detach() @ h_t, candidates[1:].detach() @ h_s
            sums["recommendation"] -= float(z_t.log_softmax(0)[target])
            sums["damaged"] -= float(z_s.log_softmax(0)[target])
            sums["representation"] += 0.3 * (1 - float(F.cosine_similarity(h_t, h_s, 0)))
            soft = F.kl_div((z_s / 2).log_softmax(0), (z_t / 2).softmax(0), reduction="sum")
            sums["scores"] += 0.1 * 4 * float(soft)
            count += 1
            for number, (view, made_of) in enumerate(zip(model.damaged.views(), model.damaged.of_view, strict=True)):
                gone = any(int(lost[-1]) >> model.damaged.modalities.index(name) & 1 for name in made_of)
                there = view.present()[prefix[-1]]
                if gone and bool(there.any()):
                    said = model.reconstruction.heads[number](h_s).detach()
                    sums["reconstruction"] += 0.1 * float(F.smooth_l1_loss(said, view.rows(prefix[-1:])[0]))
                    asked += 1
    for name, wanted in sums.items():
        assert float(terms[name].value.detach()) == pytest.approx(wanted, rel=1e-4, abs=1e-6), name
    assert asked > 3
    assert 4 < int((scored > 0).sum()) < 20
    assert float(terms["reconstruction"].targets) == asked
    assert float(terms["recommendation"].targets) == float(terms["representation"].targets) == count


def test_the_first_histories_of_a_step_are_read_again(inputs: RunInputs) -> None:
    """What the damaged pass brings is what it would of these alone; the whole pass has all."""
    damage = {"pattern": "feature", "rate": 0.5, "candidates": 0.0}
    part = losses(build(inputs, damage={**damage, "histories": 0.5}, **PLAIN))
    first = losses(build(inputs, damage=damage, **PLAIN), ROWS[:2])
    every = losses(build(inputs, damage=damage, **PLAIN))
    for name, term in part.items():
        wanted = every[name] if name == "recommendation" else first[name]
        torch.testing.assert_close(term.value, wanted.value, msg=name)
        assert float(term.targets) == float(wanted.targets)
    dropped = losses(build(inputs, dropout=True, damage={"rate": 0.0, "histories": 0.5}).train())
    # rows read among others and alone may differ in the last bit
    assert float(dropped["representation"].value.detach()) < 1e-12, "the same numbers are dropped"


def test_a_backbone_that_predicts_the_last_item_alone(inputs: RunInputs) -> None:
    """Its states, what was taken at their positions and what they teach are of the last position of each history."""
    run = without_dropout(run_of("gru4rec", damage={"rate": 1.0, "pattern": "whole_modality"}, **PLAIN))
    run = run.model_copy(update={"backbone": run.backbone.model_copy(update={"targets": "last"})})
    seed_step(1)
    model = recommender(run).build(run, inputs.under(run), POPULARITY)
    terms = losses(model)
    assert float(terms["recommendation"].targets) == float(terms["representation"].targets) == 3
    # at rate 1 each of the items 5, 20 and 6 loses all views of the modality that is drawn, but keeps one modality
    assert 1 <= float(terms["reconstruction"].targets) <= 6
    last = losses(model, np.array([[9, 9, 9, 9, 5, 9], [9, 9, 20, 6, 0, 0], [9, 6, 11, 0, 0, 0]]))
    assert float(last["reconstruction"].targets) == float(terms["reconstruction"].targets), "earlier items do not count"


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


# ---------------------------------------------------------------- popularity


@pytest.mark.parametrize("loss", [{"kind": "cross_entropy"}, {"kind": "bce"}, {"kind": "sampled_softmax"}])
def test_the_logit_adjustment_is_in_training_alone(loss: dict[str, Any], inputs: RunInputs) -> None:
    """Cross-entropy by hand; with any loss an item that is popular is scored as without."""
    settings = Popularity(strength=0.7)
    adjustment = LogitAdjustment(settings, POPULARITY)
    states, vectors, targets = torch.randn(5, 16), torch.randn(ITEMS + 1, 16), torch.tensor([3, 9, 30, 1, 7])
    own, compared = adjustment.trained(states, vectors, targets)
    counts = torch.from_numpy(POPULARITY[1:] + 1).float()
    wanted = states @ vectors[1:].T + 0.7 * (counts / counts.sum()).log()
    torch.testing.assert_close((own @ compared[1:].T).log_softmax(1), wanted.log_softmax(1))
    adjusted = build(inputs, popularity={"strength": 0.7}, counterfactual=None, loss=loss)
    plain = build(inputs, **PLAIN, loss=loss)
    assert torch.equal(ask(as_scorer(adjusted, CPU), ROWS), ask(as_scorer(plain, CPU), ROWS))
    assert adjusted.catalogue().bias is None
    one, other = (losses(model.train())["recommendation"].value for model in (adjusted, plain))
    assert not torch.allclose(one, other)


def test_the_bins_are_a_term_of_the_target_and_their_mean_when_scored(inputs: RunInputs) -> None:
    model = build(
        inputs, popularity={"adjustment": "bins", "bins": 4, "width": 3, "strength": 2.0}, counterfactual=None
    )
    adjustment = model.adjustment
    assert isinstance(adjustment, BinAdjustment)
    vectors, states, targets = model.items(), torch.randn(3, 16), torch.tensor([30, 4, 17])
    own, compared = adjustment.trained(states, vectors, targets)
    for row, target in enumerate(targets.tolist()):
        number = int(adjustment.bin_of[target])
        members = [i for i in range(1, ITEMS + 1) if adjustment.bin_of[i] == number and POPULARITY[i]]
        said = torch.cat(
            [
                view.rows(torch.tensor([i for i in members if view.present()[i].any()])).mean(0)
                for view in model.items.views().values()
            ]
        )
        wanted = states[row] @ vectors.T + 2 * adjustment.of_item(vectors) @ adjustment.of_bin(said)
        torch.testing.assert_close((own @ compared.T)[row], wanted)
    share = torch.tensor([float(POPULARITY[adjustment.bin_of.numpy() == number].sum()) for number in range(1, 5)])
    terms = [2 * adjustment.of_item(vectors) @ adjustment.of_bin(said) for said in adjustment.said]
    bias = sum(part * own for part, own in zip(share / share.sum(), terms, strict=True))
    torch.testing.assert_close(model.catalogue().bias, bias)


def test_shortcuts_are_frequent_items_that_popular_ones_follow() -> None:
    """Of four items, 1 is popular; it always follows 2, never 3, and nothing follows from one user to the next."""
    histories = [[2, 1], [2, 1], [2, 1, 1], [1, 3, 4], [1, 3, 4], [1, 4, 3]]
    flat = np.concatenate([np.array(row) for row in histories])
    offsets = np.cumsum([0, *map(len, histories)])
    popularity = np.bincount(flat, minlength=5)
    settings = Counterfactual(bins=2, variation=0.1)
    kept = shortcuts(settings, TrainingHistories(offsets, flat), popularity)
    assert kept.tolist() == [False, False, True, False, False]
    assert not shortcuts(
        settings.model_copy(update={"variation": 5.0}), TrainingHistories(offsets, flat), popularity
    ).any()


def test_at_most_so_many_shortcuts_and_the_most_frequent(data: Path) -> None:
    dataset = load_dataset(data)
    histories, popularity = training_histories(dataset), dataset.train_counts
    every = shortcuts(Counterfactual(), histories, popularity)
    fewer = shortcuts(Counterfactual(most=2), histories, popularity)
    assert every.sum() > 2 == fewer.sum()
    assert every[fewer].all()
    assert popularity[fewer].min() >= popularity[every & ~fewer].max()


# ---------------------------------------------------------------- the counterfactual


@pytest.mark.parametrize("keep", ["shortcuts", "last"])
@pytest.mark.parametrize("adjustment", [None, {"adjustment": "bins", "bins": 3}])
def test_what_shortcuts_say_is_taken_off_normalised_scores(
    keep: str, adjustment: dict[str, Any] | None, inputs: RunInputs
) -> None:
    model = build(inputs, counterfactual={"keep": keep, "tau": 0.4}, popularity=adjustment).eval()
    if keep == "shortcuts":
        model.kept[[3, 9, 20]] = True
    got = ask(as_scorer(model, CPU), ROWS, (ROWS > 0).sum(1))
    vectors = model.items().detach()
    bias = model.catalogue().bias
    bias = torch.zeros(ITEMS) if bias is None else bias[1:].detach()
    nothing = vectors_under(model, 3)[1].detach()
    for row, scores in zip(ROWS.tolist(), got, strict=True):
        row = [item for item in row if item]
        left = row[-1:] if keep == "last" else row
        read = torch.stack([vectors[i] if keep == "last" or model.kept[i] else nothing for i in left])
        own, other = (
            vectors[1:]
            @ model.backbone.encode(
                torch.arange(1, len(x) + 1)[None], torch.tensor([len(x)]), torch.cat([torch.zeros(1, 16), x])
            )[0].detach()
            for x in (vectors[row], read)
        )
        z, z_cf = ((s - s.mean()) / s.std(correction=0) for s in (own, other))
        wanted = (z - 0.4 * z_cf) * own.std(correction=0)
        apart = scores - bias - wanted
        torch.testing.assert_close(apart, apart.mean().expand(ITEMS), atol=2e-4, rtol=0)


def test_without_tau_the_base_model_answers(inputs: RunInputs) -> None:
    base = build(inputs, counterfactual=None).eval()
    expected = ask(as_scorer(base, CPU), ROWS)
    for keep in ("shortcuts", "last"):
        model = build(inputs, counterfactual={"keep": keep, "tau": 0.5}).eval()
        model.tau.fill_(0.0)
        assert torch.equal(ask(as_scorer(model, CPU), ROWS), expected), keep
        model.tau.fill_(0.5)
        assert not torch.allclose(ask(as_scorer(model, CPU), ROWS), expected)


def test_tau_is_chosen_once_on_validation_and_kept(data: Path, inputs: RunInputs, tmp_path: Path) -> None:
    grid = [0.2, 0.6, 1.0]
    run = run_of(counterfactual={"grid": grid}, training={"epochs": 2})
    output = trained(run, data, inputs, tmp_path)
    tensors = read_tensors(output)
    tried, tau = tensors["tried"].tolist(), float(tensors["tau"])
    assert tau == pytest.approx([0.0, *grid][int(np.argmax(tried))])
    assert read_json(output.with_suffix(".json"))["selected"] == {"tau": pytest.approx(tau)}
    best = [row["NDCG@10"] for row in curve(output) if "epoch" in row]
    assert tried[0] == pytest.approx(max(best)), "without tau it is what epochs were compared by"
    # without a choice the weights are the same
    fixed = read_tensors(
        trained(run_of(counterfactual={"tau": 0.6}, training={"epochs": 2}), data, inputs, tmp_path / "x")
    )
    assert float(fixed["tau"]) == pytest.approx(0.6)
    without = run_of(counterfactual=None, training={"epochs": 2})
    plain = read_tensors(trained(without, data, inputs, tmp_path / "plain"))
    assert all(torch.equal(plain[n], tensors[n]) for n in plain if n not in ("tau", "tried", "kept"))
    # a run that cannot be validated takes what the one that was had chosen
    description = output.with_suffix(".json")
    description.write_text(json.dumps({**json.loads(description.read_text()), "selected": {"tau": 0.6}}))
    final = trained(run, data, inputs, tmp_path / "final", validated=description)
    assert float(read_tensors(final)["tau"]) == pytest.approx(0.6)
    assert read_json(final.with_suffix(".json"))["selected"] == {"tau": 0.6}


# ---------------------------------------------------------------- training as a whole


@pytest.mark.parametrize("after", [1, 9])
def test_a_stop_changes_nothing(after: int, data: Path, inputs: RunInputs, tmp_path: Path) -> None:
    run = run_of(training={"epochs": 2, "batch_tokens": 250, "checkpoint_seconds": 0.0})
    expected = trained(run, data, inputs, tmp_path / "whole")
    with stopped_after(after):
        trained(run, data, inputs, tmp_path / "stopped")
    assert list((tmp_path / "stopped/state").rglob("checkpoint.safetensors"))
    again = trained(run, data, inputs, tmp_path / "stopped")
    assert again.read_bytes() == expected.read_bytes()


def test_it_learns_a_pattern_and_holds_without_pictures(data: Path, inputs: RunInputs, tmp_path: Path) -> None:
    run = run_of(training={"epochs": 10, "patience": 10, "learning_rate": 0.02})
    output = trained(run, data, inputs, tmp_path)
    judged = evaluate_run(run, Evaluation(), output, data, inputs, None, tmp_path / "e", tmp_path / "m.json")
    assert judged["metrics"]["Hit@5"] > 0.4  # by chance a sixth
    lost = run.model_copy(update={"missing": Missing(image=1.0, when="test")})
    without = evaluate_run(lost, Evaluation(), output, data, inputs, None, tmp_path / "l", tmp_path / "n.json")
    assert without["metrics"]["Hit@5"] > 0.35


@pytest.mark.parametrize(
    ("settings", "gone"),
    [
        ({"distillation": {"recommendation": 0.0}}, {"damaged"}),
        ({"distillation": {"representation": 0.0}}, {"representation"}),
        ({"distillation": {"attention": 0.0}}, {"attention"}),
        ({"distillation": {"reconstruction": 0.0}}, {"reconstruction"}),
        ({"distillation": {"scores": 0.0}}, {"scores"}),
        ({"distillation": {"scored_items": 5}}, set()),
        ({"damage": {"candidates": 0.0, "histories": 0.3}}, set()),
        ({"damage": {"pattern": "same_steps"}}, set()),
        ({"items": {"table": "p"}}, set()),
        ({"items": {"table": "t", "id_residual": True}, "popularity": {"adjustment": "bins"}}, set()),
        ({"items": {**DUAL, "backbone": "separate"}}, set()),
        ({"items": {**DUAL, "axis": "sequence"}}, set()),
        ({"items": {**DUAL, "fine": None, "alignment": {}}}, set()),
        ({"loss": {"kind": "bce", "cold_items": "left_out"}}, set()),
    ],
)  # fmt: skip
def test_parts_can_be_switched_off(
    settings: dict[str, Any], gone: set[str], data: Path, inputs: RunInputs, tmp_path: Path
) -> None:
    row = curve(trained(run_of(training={"epochs": 1}, **settings), data, inputs, tmp_path))[-1]
    whole = {"damaged", "representation", "attention", "reconstruction", "scores"}
    assert set(row) & whole == whole - gone
    assert row["NDCG@10"] > 0


@pytest.mark.parametrize("missing", [{"image": 0.5}, {"image": 1.0, "text": 1.0}, {"text": 0.5, "when": "test"}])
def test_lost_pictures_and_texts_train_and_are_judged(
    missing: dict[str, Any], data: Path, inputs: RunInputs, tmp_path: Path
) -> None:
    run = run_of(training={"epochs": 1}).model_copy(update={"missing": Missing.model_validate(missing)})
    output = trained(run, data, inputs, tmp_path)
    assert all(bool(torch.isfinite(v).all()) for v in read_tensors(output).values())
    evaluate_run(run, Evaluation(), output, data, inputs, None, tmp_path / "e", tmp_path / "m.json")


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("settings", "backbone", "said"),
    [
        ({"items": "ids"}, "sasrec", r"items: 'ids' reads no table, so there is nothing that could be lost"),
        (
            {"items": {"table": "n"}},
            "sasrec",
            r"no table that it reads \('n'\) is made from.*made_from",
        ),
        ({"items": ...}, "sasrec", "items"),
        ({"damage": {"rate": 1.5}}, "sasrec", r"damage\.rate"),
        ({"damage": {"rate": -0.1}}, "sasrec", r"damage\.rate"),
        ({"damage": {"pattern": "blocks"}}, "sasrec", r"damage\.pattern.*block"),
        ({"counterfactual": {"tau": 1.5}}, "sasrec", r"counterfactual\.tau"),
        ({"counterfactual": {"grid": [0.5, 2.0]}}, "sasrec", r"counterfactual\.grid.*tau is from 0 to 1 \(got 2\.0\)"),
        ({"distillation": {"attention": -1.0}}, "sasrec", r"distillation\.attention"),
        ({}, "bert4rec", r"backbones: 'bert4rec' looks both ways"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], backbone: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(config_of(backbone, **settings))


def test_a_table_without_rows_is_refused_before_training(data: Path, inputs: RunInputs, tmp_path: Path) -> None:
    write_item_table(tmp_path / "t.parquet", np.array([], np.int64), np.zeros((0, 6), np.float32))
    empty = inputs.model_copy(update={"tables": {**inputs.tables, "t": str(tmp_path / "t.parquet")}})
    with pytest.raises(ArtifactError, match="has no vector of any item"):
        trained(run_of(), data, empty, tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
