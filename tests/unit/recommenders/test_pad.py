"""PAD: its towers and phases, the gate by popularity, the alignment, one product for the sum of three."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from asking import CPU, START, ask
from pattern import ITEMS, make_run, reads
from stopped_training import stopped_after
from torch import Tensor

from tessera.artifacts.models import read_tensors
from tessera.artifacts.tables import ArtifactError, write_item_table
from tessera.data.dataset import load_dataset
from tessera.evaluation.histories import Histories
from tessera.objectives.mmd import kernel_mmd
from tessera.recommenders.evaluate import evaluate_run
from tessera.recommenders.item_encoders.parts import at_most
from tessera.recommenders.popularity_bins import popularity_bins
from tessera.recommenders.systems.base import as_scorer, recommender
from tessera.recommenders.systems.pad import PAD
from tessera.recommenders.systems.pad_published import PublishedPAD
from tessera.recommenders.train import train_run, training_histories
from tessera.settings.base import ConfigError
from tessera.settings.evaluation import Evaluation
from tessera.settings.runs import Run
from tessera.training.engine import Engine
from tessera.training.machine import seed_step

POPULARITY = np.arange(ITEMS + 1)
WITHOUT_TEXT = 5
SMALL: dict[str, Any] = {"recommender": "pad", "table": "t", "adapter": [8]}
HISTORIES = torch.tensor([[3, 1, 4, 1, 5, 9], [2, 7, 20, 0, 0, 0], [8, 6, 0, 0, 0, 0]])


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vectors of all items but one."""
    path = tmp_path_factory.mktemp("pad") / "t.parquet"
    items = np.array([item for item in range(1, ITEMS + 1) if item != WITHOUT_TEXT])
    write_item_table(path, items, np.random.default_rng(0).normal(size=(len(items), 6)).astype(np.float32))
    return path


def run_of(backbone: str = "sasrec", training: dict[str, Any] | None = None, **settings: Any) -> Run:
    small = SMALL if settings.get("experts") != ["id"] else {**SMALL, "adapter": [256]}  # nothing reads it there
    return make_run(backbone, system={**small, **settings}, **(training or {}))


def build(table: Path, backbone: str = "sasrec", stage: str | None = None, **settings: Any) -> PAD:
    run = run_of(backbone, **settings)
    seed_step(1)
    model = recommender(run).build(run, reads(table), POPULARITY)
    assert isinstance(model, PAD)
    model.stage.fill_(model.phases.index(stage or "disentangle"))
    return model.eval()


def trained(run: Run, data: Path, table: Path, folder: Path, validated: Path | None = None) -> Path:
    output = folder / "model.safetensors"
    train_run(run, data, reads(table), output, folder / "state", validated=validated)
    return output


def curve(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.with_name("history.jsonl").read_text().splitlines()]


# ---------------------------------------------------------------- scores


@pytest.mark.parametrize("gate", ["bins", "global", "uniform"])
@pytest.mark.parametrize("backbone", ["sasrec", "gru4rec", "bert4rec", "mamba"])
def test_one_product_is_the_weighted_sum_of_the_towers(backbone: str, gate: str, table: Path) -> None:
    model = build(table, backbone, gate=gate)
    if model.gate.logits is not None:
        torch.nn.init.normal_(model.gate.logits)
    lengths = (HISTORIES > 0).sum(1)
    scores = ask(as_scorer(model, CPU), HISTORIES.numpy(), lengths.numpy())
    bins = popularity_bins(POPULARITY, 10 if gate == "bins" else 1)
    wanted = torch.zeros(3, ITEMS)
    for item in range(1, ITEMS + 1):
        if model.gate.logits is None:
            weights = [1 / 3] * 3
        else:
            opened = torch.sigmoid(model.gate.logits[:, bins[item]])
            weights = (opened / opened.sum()).tolist()
        for weight, name in zip(weights, ("id", "aligned", "text"), strict=True):
            tower = model.tower(name)
            states = tower.backbone.encode(HISTORIES, lengths, tower.vectors())
            wanted[:, item - 1] += (weight * states @ tower.vectors()[item]).detach()
    torch.testing.assert_close(scores, wanted, rtol=1e-4, atol=1e-5)
    users = model.users(Histories.of(HISTORIES.numpy()), model.catalogue())
    assert users.shape == (3, 1, 3 * model.tower("id").backbone.dim)


@pytest.mark.parametrize("backbone", ["sasrec", "gru4rec", "bert4rec", "mamba"])
def test_what_is_trained_is_what_is_scored(backbone: str, table: Path) -> None:
    """The loss of a batch is the cross-entropy of the gated scores of its targets."""
    model = build(table, backbone)
    torch.manual_seed(3)
    loss = model.losses(Histories.of(HISTORIES.numpy()), START)["recommendation"]
    torch.manual_seed(3)
    drawn = model.tower("id").backbone.draw(HISTORIES)
    total, states = torch.zeros(()), []
    for name in ("id", "aligned", "text"):
        tower = model.tower(name)
        states.append(tower.backbone.examples(HISTORIES, tower.vectors(), drawn))
    for row, target in enumerate(states[0].targets.tolist()):
        scores = sum(
            weights * (model.tower(name).vectors() @ part.states[row])
            for weights, name, part in zip(model.gate(), ("id", "aligned", "text"), states, strict=True)
        )
        assert isinstance(scores, Tensor)
        assert {part.targets[row].item() for part in states} == {target}
        total = total - scores[1:].log_softmax(0)[target - 1]
    torch.testing.assert_close(loss.value, total, rtol=1e-4, atol=1e-4)
    assert int(loss.targets) == len(states[0].targets)


def test_popular_items_lean_on_ids_and_cold_ones_on_text(table: Path) -> None:
    shares = build(table).gate.shares()
    opened = torch.sigmoid(torch.tensor([[1.0, 0.0], [-4.0, -5.0], [0.0, 1.0]], dtype=torch.float64))
    expected = opened / opened.sum(0)
    torch.testing.assert_close(shares[:, [0, -1]].double(), expected, rtol=1e-5, atol=1e-6)
    assert shares.dtype == torch.float32
    assert (shares[0].diff() < 0).all()
    assert (shares[2].diff() > 0).all()
    torch.testing.assert_close(shares.sum(0), torch.ones(11))


@pytest.mark.parametrize("experts", [["id"], ["aligned"], ["text"], ["id", "aligned"], ["text", "id"]])
def test_fewer_towers_score_alone(experts: list[str], table: Path) -> None:
    model = build(table, experts=experts)
    assert model.catalogue().read.shape == (ITEMS + 1, 16 * len(experts))
    assert ask(as_scorer(model, CPU), HISTORIES.numpy()).shape == (3, ITEMS)
    assert model.settings.takes_new == (experts != ["id"])


# ---------------------------------------------------------------- bins


def one_by_one(popularity: np.ndarray, bins: int) -> list[int]:
    """An item at a time: a bin that holds its share is closed."""
    share = Fraction(int(popularity[1:].sum()), bins)
    bin_of, number, held = [0] * len(popularity), 1, 0
    for item in sorted(range(1, len(popularity)), key=lambda item: (-popularity[item], item)):
        bin_of[item] = number
        held += int(popularity[item])
        if held >= share and number < bins and held > 0:
            number, held = number + 1, 0
    return bin_of


def test_bins_are_filled_one_after_the_other() -> None:
    # 20 interactions, 5 a bin: item 7 (10), item 2 (5), then 4, 1, 3, 5 (2 + 1 + 1 + 1), and item 6, which nobody met
    assert popularity_bins(np.array([0, 1, 5, 1, 2, 1, 0, 10]), 4).tolist() == [0, 3, 2, 3, 3, 3, 4, 1]
    assert popularity_bins(np.zeros(4, np.int64), 1).tolist() == [0, 1, 1, 1]
    rng = np.random.default_rng(0)
    for bins in (1, 3, 10):
        for _ in range(20):
            popularity = np.concatenate([[0], rng.zipf(1.3, 40).clip(max=500)])
            assert popularity_bins(popularity, bins).tolist() == one_by_one(popularity, bins)


def test_a_bin_without_items_is_no_trouble(table: Path) -> None:
    popularity = np.ones(ITEMS + 1, np.int64)
    popularity[3] = 1000  # more than nine of ten interactions
    assert set(popularity_bins(popularity, 10)[1:].tolist()) == {1, 2}
    run = run_of()
    model = recommender(run).build(run, reads(table), popularity)
    model.stage.fill_(2)
    loss = model.losses(Histories.of(HISTORIES.numpy()), START)["recommendation"].value
    loss.backward()
    assert model.gate.logits.grad[:, 3:].abs().max() == 0
    assert model.gate.logits.grad[:, 1:3].abs().min() > 0
    assert torch.isfinite(model.gate.logits.grad).all()
    assert torch.isfinite(loss)
    model.add_items({"t": (torch.randn(1, 6), torch.ones(1, dtype=torch.bool))})
    assert model.gate.bin_of[-1] == 2, "the coldest bin that something was learned of"


# ---------------------------------------------------------------- alignment


@pytest.mark.parametrize("kernel", ["gaussian_multi", "gaussian", "laplacian", "linear", "cosine"])
def test_the_items_of_a_step_are_aligned_once_each(kernel: str, table: Path) -> None:
    model = build(table, stage="align", align={"kernel": kernel, "weight": 0.7})
    losses = model.losses(Histories.of(HISTORIES.numpy()), START)
    ids, text = model.tower("aligned").items.parts()
    members = [1, 2, 3, 4, 6, 7, 8, 9, 20]  # no padding, no repeats, not the one without text
    assert WITHOUT_TEXT in HISTORIES
    expected = 0.7 * kernel_mmd(text[members], ids[members], kernel)
    torch.testing.assert_close(losses["alignment"].value, expected)
    assert set(losses) == {"recommendation", "alignment"}


def test_more_items_than_are_compared_are_drawn_alike_everywhere(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = torch.arange(1, 20)
    chosen = at_most(members, 4, 1, 0, 0)
    assert len(chosen) == len(set(chosen.tolist())) == 4
    torch.manual_seed(99)
    assert torch.equal(chosen, at_most(members, 4, 1, 0, 0))
    for key in ((1, 0, 1), (1, 1, 0), (2, 0, 0)):  # another step, epoch, seed
        assert not torch.equal(chosen, at_most(members, 4, *key))
    assert at_most(members, 19, 1, 0, 0) is members
    # and PAD draws by the seed of its run
    drawn: list[tuple[int, ...]] = []
    monkeypatch.setattr(
        "tessera.recommenders.systems.pad.at_most", lambda items, most, *key: drawn.append(key) or items[:most]
    )
    build(table, stage="align", align={"most_items": 4}).losses(Histories.of(HISTORIES.numpy()), START)
    assert drawn == [(1, START.epoch, START.step)]


def test_infonce_draws_each_item_to_itself(table: Path) -> None:
    model = build(table, stage="align", align={"kernel": "infonce", "temperature": 0.5})
    loss = model.losses(Histories.of(HISTORIES.numpy()), START)["alignment"].value
    ids, text = (part[[1, 2, 3, 4, 6, 7, 8, 9, 20]] for part in model.tower("aligned").items.parts())
    logits = torch.nn.functional.normalize(text, dim=1) @ torch.nn.functional.normalize(ids, dim=1).T / 0.5
    own = torch.arange(len(logits))
    both = torch.nn.functional.cross_entropy(logits, own) + torch.nn.functional.cross_entropy(logits.T, own)
    torch.testing.assert_close(loss, 0.01 * both / 2)


def test_a_step_without_text_still_has_a_gradient(table: Path) -> None:
    model = build(table, stage="align", align={"anchor": False, "epochs": 1})
    losses = model.losses(Histories.of(np.array([[WITHOUT_TEXT, WITHOUT_TEXT]])), START)
    losses["alignment"].value.backward()
    assert losses["alignment"].value.item() == 0


def test_the_official_preset_aligns_slots(table: Path) -> None:
    model = build(table, stage="align", preset="official")
    assert isinstance(model, PublishedPAD)
    torch.manual_seed(0)
    members = model._members(HISTORIES)
    assert len(members) == 2 * HISTORIES.numel()
    assert members[: HISTORIES.numel()].tolist() == HISTORIES.flatten().tolist()
    drawn = members[HISTORIES.numel() :]
    assert (drawn[HISTORIES.flatten() == 0] == 0).all()
    assert (drawn[HISTORIES.flatten() > 0] > 0).all()
    assert type(build(table)) is PAD
    assert torch.isfinite(model.losses(Histories.of(HISTORIES.numpy()), START)["alignment"].value)


# ---------------------------------------------------------------- phases


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def snapshot(model: PAD) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def stepped(model: PAD, run: Run, data: Path, folder: Path, phases: int) -> list[dict[str, Tensor]]:
    """Weights before the first and after each of some phases of one epoch."""
    from tessera.training.machine import Machine

    weights = [snapshot(model)]
    program = model.program(run, training_histories(load_dataset(data)), None)
    engine = Engine(model, program, run.training, 1, folder, Machine(run.training))
    close = engine._close_phase

    def closing() -> None:
        close()
        weights.append(snapshot(model))

    engine._close_phase = closing
    engine.fit()
    assert len(weights) == phases + 1
    return weights


def test_each_phase_moves_its_own_parameters_alone(data: Path, table: Path, tmp_path: Path) -> None:
    run = run_of(training={"epochs": 1})
    seed_step(1)
    model = PAD.build(run, reads(table), POPULARITY)
    start, pretrained, aligned, end = stepped(model, run, data, tmp_path, 3)
    assert {name.split(".")[1] for name in moved(start, pretrained)} == {"id"}
    assert {name.split(".")[1] for name in moved(pretrained, aligned)} == {"aligned"}
    last = moved(aligned, end)
    assert {name.split(".")[1] for name in last} == {"id", "aligned", "text", "logits"}


def test_the_aligned_tower_begins_as_the_id_tower_ended(data: Path, table: Path, tmp_path: Path) -> None:
    for settings in ({}, {"align": None}):
        run = run_of(training={"epochs": 1}, **settings)
        seed_step(1)
        model = PAD.build(run, reads(table), POPULARITY)
        model._begin("pretrain")
        with torch.no_grad():
            for parameter in model.tower("id").parameters():
                parameter.add_(0.5)
        model._begin(model.phases[1])
        one, other = model.tower("id"), model.tower("aligned")
        assert torch.equal(one.items.weight, other.items.ids.weight)
        for name, value in one.backbone.state_dict().items():
            assert torch.equal(value, other.backbone.state_dict()[name])
        # and what its items enter as is the ID vector, but for what the text adds
        added = other.items.text() / 2
        torch.testing.assert_close(other.vectors(), one.vectors() + added)
        with torch.no_grad():
            one.items.weight.zero_()
        assert other.items.ids.weight.abs().sum() > 0, "a copy, not the same vectors"


@pytest.mark.parametrize(
    ("settings", "phases"),
    [
        ({}, ["pretrain", "align", "disentangle"]),
        ({"pretrain": None}, ["align", "disentangle"]),
        ({"align": None}, ["pretrain", "disentangle"]),
        ({"experts": ["text"]}, ["disentangle"]),
        ({"experts": ["id"]}, ["pretrain", "disentangle"]),
        ({"experts": ["aligned"]}, ["pretrain", "align", "disentangle"]),
    ],
)
def test_phases_that_nothing_comes_of_are_left_out(settings: dict[str, Any], phases: list[str], table: Path) -> None:
    assert list(build(table, **settings).phases) == phases


def test_a_phase_may_have_a_course_of_its_own(data: Path, table: Path, tmp_path: Path) -> None:
    run = run_of(training={"epochs": 2, "patience": 9}, pretrain={"epochs": 3}, align={"anchor": False, "epochs": 1})
    rows = curve(trained(run, data, table, tmp_path))
    assert [row["phase"] for row in rows] == ["pretrain"] * 3 + ["align"] + ["disentangle"] * 2
    align = rows[3]
    assert "NDCG@10" not in align, "nothing scores that could be validated"
    assert {"alignment", "loss"} & set(align)
    model = PAD.build(run, reads(table), POPULARITY)
    for phase, rate in zip(
        model.program(run_of(pretrain={"learning_rate": 0.5}), training_histories(load_dataset(data)), None),
        [0.01, 0.01, 0.01],
        strict=True,
    ):
        assert phase.optimizers["model"].settings.learning_rate == rate
    other = run_of(pretrain={"learning_rate": 0.5})
    first = PAD.build(other, reads(table), POPULARITY).program(other, training_histories(load_dataset(data)), None)[0]
    assert first.optimizers["model"].settings.learning_rate == 0.5


# ---------------------------------------------------------------- training as a whole


@pytest.mark.parametrize("backbone", ["sasrec", "gru4rec", "bert4rec"])
def test_it_learns_a_pattern_and_is_judged(backbone: str, data: Path, table: Path, tmp_path: Path) -> None:
    run = run_of(backbone, training={"epochs": 14, "patience": 14, "learning_rate": 0.02})
    output = trained(run, data, table, tmp_path)
    rows = curve(output)
    for phase in ("pretrain", "align", "disentangle"):
        assert max(row["NDCG@10"] for row in rows if row["phase"] == phase) > 0.2
    described = json.loads(output.with_name("model.json").read_text())
    assert set(described["best_epochs"]) == {"pretrain", "align", "disentangle"}
    assert described["best_epochs"]["disentangle"] == described["best_epoch"]
    assert described["validation"] == max(row["NDCG@10"] for row in rows if row["phase"] == "disentangle")
    judged = evaluate_run(run, Evaluation(), output, data, reads(table), None, tmp_path / "e", tmp_path / "m.json")
    assert judged["metrics"]["Hit@5"] > (0.25 if backbone == "bert4rec" else 0.4)  # by chance a sixth
    assert int(read_tensors(output)["stage"]) == 2


@pytest.mark.parametrize("after", [2, 9, 16, 21])
def test_a_stop_in_any_phase_changes_nothing(after: int, data: Path, table: Path, tmp_path: Path) -> None:
    run = run_of(training={"epochs": 2, "batch_tokens": 250, "checkpoint_seconds": 0.0}, dropout=0.1)
    expected = trained(run, data, table, tmp_path / "whole")
    with stopped_after(after):
        trained(run, data, table, tmp_path / "stopped")
    assert list((tmp_path / "stopped/state").rglob("checkpoint.safetensors"))
    again = trained(run, data, table, tmp_path / "stopped")
    assert again.read_bytes() == expected.read_bytes()


def test_a_final_run_lasts_as_long_in_each_phase(data: Path, table: Path, tmp_path: Path) -> None:
    run = run_of(training={"epochs": 6, "patience": 2, "learning_rate": 0.03})
    first = trained(run, data, table, tmp_path / "validated")
    described = json.loads(first.with_name("model.json").read_text())
    assert sum(described["best_epochs"].values()) < described["epochs"], (
        "it went on after the best: else nothing is tested"
    )
    final = trained(run, data, table, tmp_path / "final", first.with_name("model.json"))
    assert final.read_bytes() == first.read_bytes()
    assert json.loads(final.with_name("model.json").read_text())["best_epochs"] == described["best_epochs"]


@pytest.mark.parametrize("settings", [{}, {"align": {"anchor": False, "epochs": 2}}], ids=["none", "one phase"])
def test_a_final_run_trains_no_epoch_where_none_may_be(
    settings: dict[str, Any], data: Path, table: Path, tmp_path: Path
) -> None:
    run = run_of(training={"epochs": 0}, **settings)
    first = trained(run, data, table, tmp_path / "validated")
    final = trained(run, data, table, tmp_path / "final", first.with_name("model.json"))
    assert final.read_bytes() == first.read_bytes()


def test_a_final_run_needs_to_know_of_every_phase(data: Path, table: Path, tmp_path: Path) -> None:
    validated = tmp_path / "model.json"
    validated.write_text(json.dumps({"best_epoch": 1}))
    with pytest.raises(ValueError, match="does not say after how many epochs it was best in 'pretrain'"):
        trained(run_of(), data, table, tmp_path / "final", validated)


# ---------------------------------------------------------------- what may be wrong


def test_a_table_without_text_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_item_table(path, np.array([], np.int32), np.zeros((0, 4), np.float32))
    with pytest.raises(ArtifactError, match=r"t\.parquet: has no vector of any item of this dataset"):
        build(path)


def test_a_table_that_says_the_same_of_all_is_told_and_trains(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "t.parquet"
    write_item_table(path, np.arange(1, ITEMS + 1), np.full((ITEMS, 4), 0.1, np.float32))
    output = trained(run_of(training={"epochs": 1}), data, path, tmp_path / "run")
    assert "says the same of every item" in caplog.text
    assert all(bool(torch.isfinite(value).all()) for value in read_tensors(output).values())


def test_a_user_with_one_item_is_scored(table: Path) -> None:
    assert torch.isfinite(ask(as_scorer(build(table), CPU), np.array([[7]]))).all()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"experts": ["id", "id"]}, "experts: names something twice"),
        ({"experts": ["ids"]}, "did you mean 'id'"),
        ({"experts": []}, "experts"),
        ({"table": "tt"}, "did you mean 't'"),
        ({"align": {"anchor": False, "kernel": "none"}}, "nothing would be trained"),
        ({"align": {"kernel": "gausian"}}, "did you mean 'gaussian'"),
        ({"align": {"gamma": 0.2}}, "unknown key 'gamma'"),
        ({"bins": 0}, "bins"),
    ],
)
def test_wrong_settings_are_told(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        run_of(**settings)


# ---------------------------------------------------------------- new items


def test_new_items_are_cold_and_known_by_their_text(table: Path) -> None:
    model = build(table)
    with (
        torch.no_grad()
    ):  # as if training had met items without a row: a stand-in would be the mean of all, new ones too
        for text in model.texts():
            text.absent.add_(0.01)
    before = ask(as_scorer(model, CPU), HISTORIES.numpy())
    vectors = torch.randn(2, 6)
    scorer = as_scorer(model, CPU)
    assert model.settings.takes_new
    scorer.add_items({"t": (vectors, torch.ones(2, dtype=torch.bool))})
    after = ask(scorer, HISTORIES.numpy())
    assert after.shape == (3, ITEMS + 2)
    torch.testing.assert_close(after[:, :ITEMS], before)
    coldest = popularity_bins(POPULARITY, 10).max()
    assert model.gate.bin_of[-2:].tolist() == [coldest] * 2
    assert not torch.allclose(after[:, -1], after[:, -2]), "what their texts say tells them apart"
    cold = popularity_bins(POPULARITY, 10) == coldest
    mean = model.tower("id").vectors()[:-2][cold].mean(0)
    torch.testing.assert_close(model.tower("id").vectors()[-1], mean)
    assert model.tower("text").items.table is model.tower("aligned").items.text.table
    with pytest.raises(ValueError, match="knows no item but by training"):
        super(PAD, model).add_items({})


def test_the_table_is_in_memory_once(table: Path) -> None:
    model = build(table).double()
    one, other = model.texts()
    assert one.table is other.table
    assert one.table.dtype == torch.float64
