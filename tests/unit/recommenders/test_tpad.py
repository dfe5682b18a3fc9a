"""TPAD-style: transitions of training alone, bounds with an optimiser of their own, features, the run as a whole."""

from __future__ import annotations

import json
import math
from dataclasses import replace
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
from tessera.artifacts.tables import write_item_table
from tessera.data.dataset import Dataset, load_dataset
from tessera.evaluation.histories import Histories
from tessera.objectives.club import club
from tessera.plan.graph import Plan
from tessera.recommenders.evaluate import evaluate_run
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.systems.base import TrainingHistories, as_scorer, recommender
from tessera.recommenders.systems.tpad import TPAD
from tessera.recommenders.train import train_run, training_histories
from tessera.recommenders.transitions import Disentangler, Laws, contrast, disentangling_losses, mean_states
from tessera.settings.base import ConfigError
from tessera.settings.config import load
from tessera.settings.evaluation import Evaluation
from tessera.settings.runs import Run
from tessera.settings.systems.tpad import Disentangling
from tessera.training.engine import Engine
from tessera.training.machine import Machine, seed_step

WITHOUT_TEXT, NEVER_MET = 5, 9
POPULARITY = np.arange(ITEMS + 1)
DISTILLATION: dict[str, Any] = {"width": 6, "hidden": 16, "steps": 6, "items": 12}
SMALL: dict[str, Any] = {"recommender": "tpad", "text": "t", "image": "p", "disentangling": DISTILLATION}
ABLATIONS: dict[str, dict[str, Any]] = {
    "no_generation": {"generation": False},
    "no_disentangling": {"features": "side_by_side"},
    "no_bounds": {"disentangling": {**DISTILLATION, "lower": 0.0, "upper": 0.0}},
    "no_mmd": {"disentangling": {**DISTILLATION, "mmd": 0.0}},
    "knowledge": {"features": "knowledge"},
    "transfer": {"features": "transfer"},
    "table": {"transfer": "v"},
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> RunInputs:
    folder = tmp_path_factory.mktemp("tpad")
    rng = np.random.default_rng(0)
    for name, width in (("t", 7), ("p", 5), ("v", 4)):
        items = np.array([i for i in range(1, ITEMS + 1) if name != "t" or i != WITHOUT_TEXT])
        vectors = rng.normal(size=(ITEMS + 1, width)).astype(np.float32)
        write_item_table(folder / f"{name}.parquet", items, vectors[items])
    return RunInputs(tables={name: str(folder / f"{name}.parquet") for name in ("t", "p", "v")})


def run_of(backbone: str = "gru4rec", training: dict[str, Any] | None = None, **settings: Any) -> Run:
    shape: dict[str, Any] = {"dim": 16, "max_length": 12, "dropout": 0.1}
    apart = settings.get("features", "distilled") == "distilled"
    whole = {key: value for key, value in SMALL.items() if apart or key != "disentangling"}
    config = {
        "datasets": {"x": {"source": "bazaar"}},
        "backbones": dict.fromkeys(("sasrec", "gru4rec", "bert4rec", "srgnn"), shape),
        "tables": {name: {"recipe": "vectors", "path": f"{name}.npy"} for name in ("t", "p", "v")},
        "systems": {"s": {**whole, **settings}},
        "training": {"epochs": 2, "batch_tokens": 200, "learning_rate": 0.01, "device": "cpu", **(training or {})},
        "experiment": {"datasets": ["x"], "systems": ["s"], "backbones": [backbone], "seeds": [1]},
    }
    return Plan(load(config)).runs[0]


def build(inputs: RunInputs, backbone: str = "gru4rec", **settings: Any) -> TPAD:
    run = run_of(backbone, **settings)
    seed_step(1)
    model = recommender(run).build(run, inputs, POPULARITY)
    assert isinstance(model, TPAD)
    return model.eval()


def trained(run: Run, data: Path, inputs: RunInputs, folder: Path) -> Path:
    output = folder / "model.safetensors"
    train_run(run, data, inputs, output, folder / "state")
    return output


def curve(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.with_name("history.jsonl").read_text().splitlines()]


# ---------------------------------------------------------------- transfer features


@pytest.mark.parametrize("backbone", ["gru4rec", "srgnn"])
def test_transfer_features_are_means_over_occurrences(backbone: str, inputs: RunInputs) -> None:
    model = build(inputs, backbone)
    tower = model.tower
    assert tower is not None
    histories = [[3, 1, 3, 2], [2], [1, 4, 1, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7]]
    offsets = np.cumsum([0, *map(len, histories)])
    items = np.concatenate(histories).astype(np.int32)
    tower.train()
    means, present = mean_states(tower.backbone, tower.vectors(), offsets, items)
    assert tower.backbone.training
    tower.eval()
    held: dict[int, list[Tensor]] = {}
    with torch.no_grad():
        for history in histories:
            for end in range(1, len(history) + 1):
                read = history[max(0, end - tower.backbone.max_length) : end]
                state = tower.backbone.encode(torch.tensor([read]), torch.tensor([len(read)]), tower.vectors())
                held.setdefault(history[end - 1], []).append(state[0])
    assert sorted(held) == present.nonzero()[:, 0].tolist()
    for item, states in held.items():
        torch.testing.assert_close(means[item], torch.stack(states).mean(0), atol=1e-5, rtol=1e-5)
    assert (means[~present] == 0).all()


def test_held_out_interactions_reach_no_transfer_feature(data: Path, inputs: RunInputs, tmp_path: Path) -> None:
    """Whatever is held out, the features are the same bits; and they are those of training interactions."""
    dataset = load_dataset(data)
    model = build(inputs)
    begin(model, dataset)
    held_out = dataset.split != 0
    assert held_out.any()
    changed = dataset.items.copy()
    changed[held_out] = 1 + changed[held_out] % ITEMS
    other = build(inputs)
    begin(other, replace(dataset, items=changed))
    assert torch.equal(model.tau, other.tau)
    assert model.tau_present[1:].tolist() == (dataset.train_counts[1:] > 0).tolist()
    one = dataset.items.copy()
    one[np.flatnonzero(~held_out)[0]] = 1 + one[np.flatnonzero(~held_out)[0]] % ITEMS
    third = build(inputs)
    begin(third, replace(dataset, items=one))
    assert not torch.equal(model.tau, third.tau)


def begin(model: TPAD, dataset: Dataset) -> None:
    """Come to the second phase without the first."""
    step = model.program(run_of(), training_histories(dataset), None)[1].begin
    assert step is not None
    step()


# ---------------------------------------------------------------- taken apart


def test_the_contrast_bounds_what_is_told() -> None:
    same = torch.randn(64, 8)
    assert math.log(64) - float(contrast(same, same, 0.05)) > 3.9
    assert math.log(64) - float(contrast(torch.randn(64, 8), same, 1.0)) == pytest.approx(0, abs=0.2)


def test_heads_find_what_tells_of_transitions_and_leave_the_rest() -> None:
    """Of knowledge that is half what transfer features hold and half noise, each part gets its half."""
    torch.manual_seed(0)
    known, noise = torch.randn(400, 3), torch.randn(400, 3)
    knowledge, transfer = torch.cat([known, noise], 1), known
    settings = Disentangling(width=3, hidden=32, upper=0.5)
    heads, laws = Disentangler(settings, 6, 3), Laws(settings, 3)
    optimizers = [torch.optim.Adam(part.parameters(), lr=3e-3) for part in (heads, laws)]
    for _ in range(500):
        losses, parts = disentangling_losses(settings, heads, laws, knowledge, transfer)
        optimizers[0].zero_grad()
        (losses["lower"] + 0.5 * losses["upper"] + 0.1 * losses["mmd"] + losses["reconstruction"]).backward()
        optimizers[0].step()
        optimizers[1].zero_grad()
        laws.misfit(parts, transfer).backward()
        optimizers[1].step()
    parts = heads(knowledge)

    def told(part: Tensor, of: Tensor) -> float:
        """Share of the variance of `of` that a linear map of `part` explains."""
        part = torch.cat([part.detach(), torch.ones(len(part), 1)], 1)
        left = of - part @ torch.linalg.lstsq(part, of).solution
        return 1 - float(left.square().mean() / of.var(unbiased=False))

    assert told(parts.relevant, known) > 0.9
    assert told(parts.irrelevant, noise) > 0.6
    assert told(parts.irrelevant, known) < 0.3


def test_heads_gain_nothing_by_leaving_the_laws_behind() -> None:
    """A bound below zero is that of a law that does not fit: it says nothing, and moves nothing."""
    torch.manual_seed(0)
    settings = Disentangling(width=3, hidden=8)
    heads, laws = Disentangler(settings, 6, 3), Laws(settings, 3)
    parts = heads(torch.randn(40, 6) * 50)
    assert max(float(part.detach().abs().max()) for part in parts) <= 3
    wrong = [(-parts.irrelevant, torch.zeros(40, 3)), (-parts.relevant, torch.zeros(40, 3))]
    for law, told in zip((laws.of_transfer, laws.of_relevant), wrong, strict=True):
        law.forward = lambda _, told=told: told  # type: ignore[method-assign, misc]
    assert float(club(*wrong[0], parts.irrelevant).detach()) < 0
    bound = laws.bound(parts, parts.irrelevant.detach())
    bound.backward()
    assert float(bound.detach()) == 0
    assert not any(value.grad is not None and value.grad.any() for value in heads.parameters())


def engine_of(model: TPAD, run: Run, data: Path, folder: Path) -> Engine:
    program = model.program(run, training_histories(load_dataset(data)), None)
    return Engine(model, program, run.training, 1, folder, Machine(run.training))


def test_each_phase_and_each_optimiser_moves_its_own(
    data: Path, inputs: RunInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(inputs)
    engine = engine_of(model, run_of(training={"epochs": 1}), data, tmp_path)
    update = Engine._update
    moves: dict[tuple[str, str], set[str]] = {}
    frozen: list[Tensor] = []

    def watched(self: Engine, phase: Any, asked: Any) -> None:
        before = {name: value.detach().clone() for name, value in model.named_parameters()}
        update(self, phase, asked)
        moved = {name for name, value in model.named_parameters() if not torch.equal(before[name], value)}
        moves.setdefault((phase.name, asked.optimizer), set()).update(moved)
        if phase.name == "recommend":
            frozen.append(model.features.get_buffer("z_text").clone())

    monkeypatch.setattr(Engine, "_update", watched)
    engine.fit()
    names = {name for name, _ in model.named_parameters()}

    def of(*starts: str) -> set[str]:
        return {name for name in names if name.startswith(starts)}

    assert moves == {
        ("transfer", "model"): of("tower."),
        ("distil", "model"): of("heads."),
        ("distil", "estimator"): of("laws."),
        ("recommend", "model"): of("features.", "backbone."),
    }
    assert all(torch.equal(part, frozen[0]) for part in frozen)
    assert len(of("laws.")) == 32


def test_the_laws_reach_no_head_and_the_bounds_no_transfer_feature(inputs: RunInputs) -> None:
    model = build(inputs)
    model.tau_present[1:] = True
    model.tau.normal_()
    losses = model._distil_losses(START)
    assert {"lower", "upper", "mmd", "reconstruction", "lower_bound", "upper_bound"} == set(losses)
    losses["upper"].value.backward()
    assert model.heads["text"].irrelevant[0].weight.grad.abs().sum() > 0
    assert not model.tau.requires_grad
    model.zero_grad()
    model._law_losses()["law"].value.backward()
    reached = {name.partition(".")[0] for name, value in model.named_parameters() if value.grad is not None}
    assert reached == {"laws"}


# ---------------------------------------------------------------- features beside IDs


def test_items_are_ids_and_a_weighted_sum_of_what_they_have(inputs: RunInputs) -> None:
    model = build(inputs)
    torch.manual_seed(2)
    for name in ("text", "image"):
        model.features.get_buffer(f"z_{name}").normal_()
    with torch.no_grad():
        model.features.gate.copy_(torch.tensor([0.7, -0.4]))
        model.features.ids.weight.normal_()
    vectors = model.features(model._available())
    weights = torch.tensor([0.7, -0.4]).softmax(0)
    maps, ids = model.features.maps, model.features.ids.weight
    for item in (1, WITHOUT_TEXT):
        said = [maps[name](model.features.get_buffer(f"z_{name}")[item]) for name in ("text", "image")]
        mixed = said[1] if item == WITHOUT_TEXT else weights[0] * said[0] + weights[1] * said[1]
        torch.testing.assert_close(vectors[item], model.features.norm(ids[item] + mixed))
    torch.testing.assert_close(vectors[0], model.features.norm(ids[0]))
    assert vectors.detach()[1:].norm(dim=1).mean() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("name", ["distilled", *ABLATIONS])
def test_every_ablation_trains_and_is_judged(name: str, data: Path, inputs: RunInputs, tmp_path: Path) -> None:
    run = run_of(training={"epochs": 1}, **ABLATIONS.get(name, {}))
    read = inputs.model_copy(update={"tables": {table: inputs.tables[table] for table in run.tables}})
    output = trained(run, data, read, tmp_path)
    rows = curve(output)
    phases = list(dict.fromkeys(row.get("phase", "") for row in rows))
    assert phases == {
        "distilled": ["transfer", "distil", "recommend"], "no_generation": ["distil", "recommend"],
        "no_disentangling": ["transfer", "recommend"], "knowledge": [phases[0]], "table": ["distil", "recommend"],
        "transfer": ["transfer", "recommend"],
    }.get(name, ["transfer", "distil", "recommend"])  # fmt: skip
    losses = {key for row in rows for key in row}
    assert ("misfit" in losses) == (name in ("distilled", "no_generation", "no_mmd", "table"))
    assert ("mmd" in losses) == (name in ("distilled", "no_generation", "no_bounds", "table"))
    weights = read_tensors(output)
    assert all(bool(torch.isfinite(value.float()).all()) for value in weights.values())
    told = [key for key in weights if key.startswith("features.z_")]
    assert told == (["features.z_transfer"] if name == "transfer" else ["features.z_image", "features.z_text"])
    assert any(weights[key].abs().sum() > 0 for key in told)
    judged = evaluate_run(run, Evaluation(), output, data, read, None, tmp_path / "e", tmp_path / "m.json")
    assert judged["metrics"]["Hit@5"] > 0


def test_without_generation_the_states_are_those_of_an_untrained_model(data: Path, inputs: RunInputs) -> None:
    model = build(inputs, generation=False)
    histories = training_histories(load_dataset(data))
    begun = model.program(run_of(generation=False), histories, None)[0]
    expected, _ = mean_states(model.tower.backbone, model.tower.vectors(), histories.offsets, histories.items)
    begun.begin()
    rows = model.tau_present
    centred = expected[rows] - expected[rows].mean(0)
    torch.testing.assert_close(model.tau[rows], centred / centred.square().mean().sqrt())


# ---------------------------------------------------------------- training as a whole


@pytest.mark.parametrize("backbone", ["gru4rec"])
def test_it_learns_a_pattern_and_is_judged(backbone: str, data: Path, inputs: RunInputs, tmp_path: Path) -> None:
    run = run_of(backbone, training={"epochs": 14, "patience": 14, "learning_rate": 0.02})
    output = trained(run, data, inputs, tmp_path)
    judged = evaluate_run(run, Evaluation(), output, data, inputs, None, tmp_path / "e", tmp_path / "m.json")
    assert judged["metrics"]["Hit@5"] > 0.4  # by chance a sixth


@pytest.mark.parametrize("after", [1, 6, 12])
def test_a_stop_changes_nothing(after: int, data: Path, inputs: RunInputs, tmp_path: Path) -> None:
    """In the first phase, at its end, among the steps of the heads, and in the last."""
    run = run_of(training={"epochs": 1, "batch_tokens": 250, "checkpoint_seconds": 0.0})
    expected = trained(run, data, inputs, tmp_path / "whole")
    with stopped_after(after):
        trained(run, data, inputs, tmp_path / "stopped")
    assert list((tmp_path / "stopped/state").rglob("checkpoint.safetensors"))
    again = trained(run, data, inputs, tmp_path / "stopped")
    assert again.read_bytes() == expected.read_bytes()


# ---------------------------------------------------------------- new items, and what may be wrong


def test_a_new_item_is_what_its_knowledge_says(inputs: RunInputs) -> None:
    model = build(inputs)
    model._begin("recommend", TrainingHistories(np.array([0, 2]), np.array([1, 2], np.int32)))
    twin = {
        knowledge.name: (knowledge.table[3:4] * knowledge.scale + knowledge.mean, torch.ones(1, dtype=torch.bool))
        for knowledge in (model.knowledge["text"], model.knowledge["image"])
    }
    with torch.no_grad():
        model.features.ids.weight[3] = 0
    assert model.settings.takes_new
    model.add_items(twin)
    vectors = model.catalogue().scored
    assert len(vectors) == ITEMS + 2
    torch.testing.assert_close(vectors[-1], vectors[3])
    assert ask(as_scorer(model, CPU), np.array([[3, 4]])).shape == (1, ITEMS + 1)
    other = build(inputs, features="side_by_side")
    assert not other.settings.takes_new
    with pytest.raises(ValueError, match="needs sessions that an item was met in"):
        other.add_items(twin)


def test_nothing_to_take_apart_is_told(inputs: RunInputs) -> None:
    with pytest.raises(ValueError, match="fewer than two items have both"):
        build(inputs)._distil_losses(START)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"text": None, "image": None}, "needs a table: text or image, one at least"),
        ({"text": "tt"}, "did you mean 't'"),
        ({"transfer": "v", "generation": False}, "transfer features come from a table"),
        ({"transfer": "v", "features": "knowledge"}, "transfer is said of transfer features"),
        ({"generation": False, "features": "knowledge"}, "generation is said of transfer features"),
        ({"features": "side_by_side", "disentangling": {"steps": 5}}, "disentangling: is of features: distilled"),
        ({"features": "distiled"}, "did you mean 'distilled'"),
        (
            {"disentangling": {"lower": 0.0, "upper": 0.0, "mmd": 0.0, "reconstruction": 0.0}},
            "nothing would be learned",
        ),
        ({"disentangling": {"steps": 0}}, "steps"),
        ({"beta": 1}, "unknown key 'beta'"),
    ],
)
def test_wrong_settings_are_told(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        run_of(**settings)


def test_every_table_of_results_says_that_it_is_a_reconstruction() -> None:
    assert run_of().remarks == ["TPAD-style, a reconstruction: its method section was not to be had"]


def test_a_batch_without_rows_is_accepted(inputs: RunInputs) -> None:
    empty = Histories.of(np.zeros((0, 2), np.int64))
    assert build(inputs).losses(empty, START)["recommendation"].targets == 0
