"""DMESR: the fusion item by item, the alignment by hand, lost views, both backbones, and whole runs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from asking import ask
from pattern import ITEMS, write_dataset
from torch import Tensor

import tessera.recommenders.train
from forked_processes import run_processes
from tessera.artifacts.models import read_tensors
from tessera.artifacts.sequences import ItemSequences, read_item_sequences, write_item_sequences
from tessera.artifacts.tables import ArtifactError, write_item_table
from tessera.evaluation.histories import Histories
from tessera.evaluation.judge import Scorer
from tessera.plan.graph import Plan
from tessera.recommenders.evaluate import evaluate_run, load_scorer
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.item_encoders.dual_view import DualViewEncoder
from tessera.recommenders.item_encoders.fusion import CrossAttention, SequenceFusion
from tessera.recommenders.missing import lost_rows
from tessera.recommenders.systems.backbone import SequentialRecommender
from tessera.recommenders.train import launch, train_run
from tessera.settings.backbones.bert4rec import BERT4RecSettings
from tessera.settings.backbones.gru4rec import GRU4RecSettings
from tessera.settings.backbones.sasrec import SASRecSettings
from tessera.settings.base import ConfigError
from tessera.settings.config import load
from tessera.settings.evaluation import Evaluation
from tessera.settings.items.dual_view import DualViewItems
from tessera.settings.kinds import implementation
from tessera.settings.missing import Missing
from tessera.settings.runs import Run
from tessera.training import attend
from tessera.training.losses import Losses
from tessera.training.phases import Position

WIDTH, DIM = 8, 12
NO_PICTURE, NO_TEXT, NOTHING = 3, 4, 5
NAMES = {"image": "image", "text": "text", "both": "both", "fine": "fine"}


def settings(**changes: Any) -> DualViewItems:
    return DualViewItems.model_validate({**NAMES, "width": WIDTH, "adapter": [10], **changes})


def views(items: int = 9) -> tuple[dict[str, tuple[Tensor, Tensor]], ItemSequences]:
    """Tables of `items` items; some lack a picture, a text, or everything; values occur at several items."""
    generator = torch.Generator().manual_seed(0)
    coarse = {}
    for shown, lacking in (("image", (NO_PICTURE, NOTHING)), ("text", (NO_TEXT, NOTHING)),
                           ("both", (NO_PICTURE, NO_TEXT, NOTHING))):  # fmt: skip
        present = torch.ones(items + 1, dtype=torch.bool)
        present[[0, *lacking]] = False
        vectors = torch.randn(items + 1, 6, generator=generator, dtype=torch.float64) * present[:, None]
        coarse[shown] = (vectors, present)
    values = torch.randn(5, 7, generator=generator, dtype=torch.float64)
    counts = torch.arange(items + 1) % 3 + 1
    counts[[0, NO_TEXT, NOTHING]] = 0
    there = torch.arange(3) < counts[:, None]
    chosen = torch.randint(5, (items + 1, 3), generator=generator)
    return coarse, ItemSequences.of((values[chosen] * there[..., None]).numpy(), there.numpy())


MADE_OF = {"image": ["image"], "text": ["text"], "both": ["image", "text"], "fine": ["text"]}


def encoder(**changes: Any) -> DualViewEncoder:
    torch.manual_seed(3)
    coarse, fine = views()
    missing = changes.pop("missing", None)
    made = settings(**changes)
    lost = None if missing is None else {v: lost_rows(Missing(**missing), made_of, len(fine.value_index) - 1)
                                         for v, made_of in MADE_OF.items()}  # fmt: skip
    shown = {name: coarse[name] for name in made.coarse}
    found = DualViewEncoder(made, shown, fine if made.fine else None, DIM, lost).double()
    with torch.no_grad():  # adapters start small: differences would drown
        for part in found.parameters():
            part.add_(torch.randn_like(part) * 0.3)
    return found.eval()


def attention_by_hand(attention: CrossAttention, query: Tensor, keys: list[Tensor]) -> Tensor:
    """One query among some keys, head by head."""
    size = WIDTH // attention.heads
    q = attention.project_query.weight @ query
    both = [attention.project_keys.weight @ key for key in keys]
    heads = []
    for head in range(attention.heads):
        part = slice(head * size, (head + 1) * size)
        logits = torch.stack([q[part] @ x[:WIDTH][part] / math.sqrt(size) for x in both])
        heads.append(sum(w * x[WIDTH:][part] for w, x in zip(logits.softmax(0), both, strict=True)))
    return attention.project_out(torch.cat(heads))


def standardised(vectors: Tensor, present: Tensor) -> Tensor:
    known = vectors[present]
    centred = vectors - known.mean(0)
    return centred / (known - known.mean(0)).square().mean().sqrt()


def item_by_hand(model: DualViewEncoder, item: int) -> Tensor:
    """One item's vector from its own rows alone."""
    asked = model.settings
    coarse, rows = views()
    vectors, there = torch.from_numpy(rows.dense()), torch.from_numpy(rows.present)
    tokens: dict[str, list[Tensor]] = {"coarse": [], "fine": []}
    for shown in asked.coarse:
        table, present = coarse[shown]
        row = model.project[shown](standardised(table, present)[item])
        tokens["coarse"].append(row if present[item] else model.absent[shown])
    if asked.fine:
        assert model.fine is not None
        known = standardised(vectors, there)[item][there[item]]
        tokens["fine"] = [model.fine.project(row) for row in known] or [model.absent["fine"]]
    found = []
    for view, other in (("coarse", "fine"), ("fine", "coarse")):
        if not tokens[view]:
            continue
        own = torch.stack(tokens[view]).mean(0)
        if tokens[other] and asked.direction in ("both", view):
            assert model.fusion is not None
            read = model.fusion.reads[view]
            if asked.fusion == "attention":
                assert isinstance(read, CrossAttention)
                own = own + torch.stack([attention_by_hand(read, q, tokens[other]) for q in tokens[view]]).mean(0)
            else:
                own = read(torch.cat([own, torch.stack(tokens[other]).mean(0)]))
        found.append(model.adapters[view](own))
    if model.gate is None:
        return torch.cat(found)
    share = torch.sigmoid(model.gate(torch.cat(found)))
    return share * found[0] + (1 - share) * found[1]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"direction": "coarse"},
        {"direction": "fine"},
        {"fusion": "concat"},
        {"fusion": "concat", "direction": "fine"},
        {"combine": "gated_sum"},
        {"fine": None},
        {"image": None, "text": None, "both": None},
        {"image": None, "both": None, "heads": 4},
    ],
)
@torch.no_grad()
def test_all_items_at_once_are_items_one_by_one(changes: dict[str, Any]) -> None:
    model = encoder(**changes)
    made = model()
    assert made.shape == (10, DIM)
    for item in range(1, 10):
        torch.testing.assert_close(made[item], item_by_hand(model, item), rtol=0, atol=1e-12)


@torch.no_grad()
def test_what_an_item_lacks_is_a_learned_vector() -> None:
    """The zero of the table never enters: another learned vector is another item vector, where something is absent."""
    model = encoder()
    before = model()
    for shown, lacking in (("image", {NO_PICTURE, NOTHING}), ("both", {NO_PICTURE, NO_TEXT, NOTHING}),
                           ("fine", {NO_TEXT, NOTHING})):  # fmt: skip
        kept = model.absent[shown].clone()
        model.absent[shown] += 1.0
        moved = (model() - before).abs().amax(1) > 1e-9
        assert set(moved.nonzero().flatten().tolist()) - {0} == lacking
        model.absent[shown].copy_(kept)


def info_nce(x: Tensor, y: Tensor, temperature: float) -> float:
    """Symmetric, a pair at a time."""
    x, y = x / x.norm(dim=1, keepdim=True), y / y.norm(dim=1, keepdim=True)
    total = 0.0
    for i in range(len(x)):
        for one, other in ((x, y), (y, x)):
            logits = [(one[i] @ other[j]).item() / temperature for j in range(len(x))]
            total -= logits[i] - math.log(sum(math.exp(z) for z in logits))
    return total / 2 / len(x)


@pytest.mark.parametrize("anchor", [False, True])
def test_alignment_is_symmetric_info_nce(anchor: bool) -> None:
    model = encoder(alignment={"weight": 0.5, "temperature": 0.3, "dim": 4, "anchor": anchor})
    targets = torch.tensor([7, 2, 7, NO_PICTURE, 1, NO_TEXT, NOTHING, 8])
    loss = model.auxiliary_losses(model(), targets)["alignment"]
    assert model.heads is not None
    coarse, _ = views()
    seen = {
        shown: model.heads[shown](model.project[shown](standardised(*coarse[shown])[[1, 2, 7, 8]]))
        for shown in ("image", "text", "both")
        if shown in model.heads
    }
    pairs = [("image", "text"), ("image", "both"), ("text", "both")] if anchor else [("image", "text")]
    expected = np.mean([info_nce(seen[a], seen[b], 0.3) for a, b in pairs])
    assert float(loss) == pytest.approx(0.5 * expected, abs=1e-12)


def test_items_that_lack_a_view_are_no_part_of_the_alignment() -> None:
    model = encoder()
    nothing = model.auxiliary_losses(model(), torch.tensor([NO_PICTURE, NO_TEXT, NOTHING]))
    assert float(nothing["alignment"]) == 0.0
    few, more = (
        model.auxiliary_losses(model(), torch.tensor(t))["alignment"]
        for t in ([1, 2, 8], [1, 2, 8, NO_PICTURE, NOTHING])
    )
    torch.testing.assert_close(few, more, rtol=0, atol=0)
    few.backward()
    assert all(part.grad is None for part in model.absent.values())
    for changes in ({"alignment": None}, {"text": None}, {"image": None}):
        without = encoder(**changes)
        assert without.auxiliary_losses(without(), torch.tensor([1, 2])) == {}


@torch.no_grad()
def test_lost_views_are_as_if_they_had_never_been() -> None:
    """Rate one: whatever stood in the tables of the picture makes no difference, and by default everything does."""
    for modality, shown in (("image", ("image", "both")), ("text", ("text", "both"))):
        model, plain = encoder(missing={modality: 1.0}), encoder()
        before, there = model(), plain()
        for name in shown:
            model.get_buffer(f"table_{name}").mul_(5.0)
            plain.get_buffer(f"table_{name}").mul_(5.0)
        if modality == "text":
            assert model.fine is not None
            model.fine.values.mul_(5.0)
        torch.testing.assert_close(model(), before, rtol=0, atol=0)
        assert (plain() - there).abs().max() > 1e-3


@pytest.mark.parametrize(("when", "training", "judged"), [("training", True, False), ("test", False, True),
                                                         ("both", True, True)])  # fmt: skip
@torch.no_grad()
def test_views_are_lost_when_asked(when: str, training: bool, judged: bool) -> None:
    model, plain = encoder(missing={"image": 0.6, "when": when}), encoder()
    for mode, lost in ((True, training), (False, judged)):
        moved = (model.train(mode)() - plain.train(mode)()).abs().amax(1) > 1e-9
        assert bool(moved.any()) == lost


def test_more_is_lost_at_a_higher_rate_and_other_items_by_another_seed() -> None:
    few, more, other = (
        set(lost_rows(Missing(image=share, seed=seed), ["image"], 200).rows.nonzero().flatten().tolist())
        for share, seed in ((0.3, 0), (0.7, 0), (0.3, 1))
    )
    assert few < more
    assert few != other


@pytest.mark.parametrize("causal", [True, False])
@torch.no_grad()
def test_along_a_history_a_position_sees_none_after_it(causal: bool) -> None:
    torch.manual_seed(0)
    fusion = SequenceFusion(DIM, 2, causal).double()
    x, real = torch.randn(2, 6, DIM, dtype=torch.float64), torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    before = fusion(x, real)
    changed = x.clone()
    changed[:, 3] += 1.0
    moved = (fusion(changed, real) - before).abs().amax(2) > 1e-9
    assert moved[0].tolist() == ([False] * 3 + [True] * 3 if causal else [True] * 6)
    changed = x.clone()
    changed[1, 4:] += 1.0  # padding is never seen
    assert not ((fusion(changed, real) - before)[1, :4].abs() > 0).any()


@torch.no_grad()
def test_along_a_history_is_position_by_position() -> None:
    torch.manual_seed(0)
    fusion = SequenceFusion(2 * WIDTH, 2, True).double()
    x = torch.randn(1, 5, 2 * WIDTH, dtype=torch.float64)
    made = fusion(x, torch.ones(1, 5, dtype=torch.bool))[0]
    coarse, fine = x[0].chunk(2, dim=1)
    for place in range(5):
        c = coarse[place] + attention_by_hand(fusion.coarse, coarse[place], list(fine[: place + 1]))
        f = fine[place] + attention_by_hand(fusion.fine, fine[place], list(coarse[: place + 1]))
        torch.testing.assert_close(made[place], torch.cat([c, f]), rtol=0, atol=1e-12)


SHAPES = {
    "sasrec": SASRecSettings(dim=DIM, inner_dim=16, layers=1, max_length=10),
    "gru4rec": GRU4RecSettings(dim=DIM, hidden_dim=8, max_length=10),
    "bert4rec": BERT4RecSettings(dim=DIM, inner_dim=16, layers=1, max_length=10),
}


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("backbone", ["shared", "separate"])
@torch.no_grad()
def test_views_read_apart_have_scores_that_add(kind: str, backbone: str) -> None:
    torch.manual_seed(0)
    shape = SHAPES[kind]
    two = DualViewEncoder.backbone(settings(backbone=backbone), shape, implementation(shape)).double().eval()
    vectors = torch.randn(10, DIM, dtype=torch.float64)
    histories, lengths = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0]]), torch.tensor([4, 2])
    states = two.encode(histories, lengths, vectors)
    parts = list(two.views)  # type: ignore[arg-type]
    assert len(parts) == (1 if backbone == "shared" else 2)
    apart = [
        view.encode(histories, lengths, half) @ half.T
        for view, half in zip((parts[0], parts[-1]), vectors.chunk(2, dim=1), strict=True)
    ]
    torch.testing.assert_close(states @ vectors.T, apart[0] + apart[1], rtol=0, atol=1e-12)
    found = two.examples(histories, vectors)  # the same items are hidden in either view
    assert found.states.shape == (len(found.targets), DIM)
    drawn = two.draw(histories)
    halves = [
        view.examples(histories, half, drawn)
        for view, half in zip((parts[0], parts[-1]), vectors.chunk(2, dim=1), strict=True)
    ]
    assert halves[0].targets.equal(halves[1].targets)
    torch.testing.assert_close(two.examples(histories, vectors, drawn).states,
                               torch.cat([part.states for part in halves], 1))  # fmt: skip


# ---------------------------------------------------------------- whole runs


def write_views(folder: Path, skip: tuple[int, ...] = (4, 17)) -> RunInputs:
    """The number of an item as its picture tells it (tens) and as its text tells it (units)."""
    ids = np.array([item for item in range(1, ITEMS + 1) if item not in skip])
    rng = np.random.default_rng(0)
    tens, units = np.eye(3)[(ids - 1) // 10], np.eye(10)[(ids - 1) % 10]
    told = {"image": tens, "text": np.concatenate([units, 0.1 * rng.normal(size=(len(ids), 2))], 1),
            "both": np.concatenate([tens, units], 1)}  # fmt: skip
    for name, vectors in told.items():
        write_item_table(folder / f"{name}.parquet", ids, vectors)
    every = np.repeat(np.arange(1, ITEMS + 1), 2)
    rows = np.zeros((len(every), 11))
    rows[np.arange(len(every)), np.where(np.arange(len(every)) % 2, 10, (every - 1) % 10)] = 1
    write_item_sequences(folder / "fine.parquet", every, ["units", "kind"] * ITEMS, rows)
    return RunInputs(tables={name: str(folder / f"{name}.parquet") for name in NAMES})


def config(items: dict[str, Any], recommender: str = "sasrec", **training: Any) -> dict[str, Any]:
    read = {"recipe": "vectors", "path": "x.npy"}
    items = dict(items)
    losses = {"missing": items.pop("missing")} if "missing" in items else {}
    return {
        "datasets": {"x": {"source": "bazaar"}},
        "backbones": {key: {"dim": 16, "max_length": 12, "dropout": 0.1} for key in ("sasrec", "gru4rec", "bert4rec")},
        "tables": {name: {**read, "made_from": MADE_OF[name]} for name in ("image", "text", "both")}
        | {"fine": {"recipe": "attributes", "model": "small"}},
        "systems": {"s": {"items": {"kind": "dual_view", **NAMES, "width": 16, "adapter": [32], **items}, **losses}},
        "training": {"epochs": 2, "batch_tokens": 200, "learning_rate": 0.01, "device": "cpu", **training},
        "experiment": {"datasets": ["x"], "systems": ["s"], "backbones": [recommender], "seeds": [1]},
    }


def run_of(items: dict[str, Any], recommender: str = "sasrec", **training: Any) -> Run:
    return Plan(load(config(items, recommender, **training))).runs[0]


def trained(run: Run, data: Path, inputs: RunInputs, folder: Path) -> Path:
    torch.set_num_threads(1)
    output = folder / "model.safetensors"
    train_run(run, data, inputs, output, folder / "state")
    return output


def hit(run: Run, data: Path, inputs: RunInputs, model: Path) -> float:
    found = evaluate_run(run, Evaluation(), model, data, inputs, None, model.with_name("e.parquet"),
                         model.with_name("m.json"))  # fmt: skip
    return float(found["metrics"]["Hit@5"])


@pytest.mark.parametrize(
    ("recommender", "items", "epochs"),
    [
        ("sasrec", {}, 12),
        ("gru4rec", {"axis": "sequence"}, 15),
        ("bert4rec", {"backbone": "shared"}, 60),
    ],
)
def test_every_backbone_learns_the_pattern(
    recommender: str, items: dict[str, Any], epochs: int, data: Path, tmp_path: Path
) -> None:
    rate = 0.003 if recommender == "bert4rec" else 0.01
    run = run_of(items, recommender, epochs=epochs, patience=100, learning_rate=rate)
    inputs = write_views(tmp_path)
    assert hit(run, data, inputs, trained(run, data, inputs, tmp_path)) > 0.7  # chance is 0.2


def test_neither_view_alone_tells_the_items_apart(data: Path, tmp_path: Path) -> None:
    """Ten items share a picture, three a text: views that are fused know more than the better of them."""
    inputs = write_views(tmp_path, ())
    found = {}
    for name, items in (("two", {}), ("coarse", {"text": None, "both": None, "fine": None}),
                        ("fine", {"image": None, "text": None, "both": None})):  # fmt: skip
        (tmp_path / name).mkdir()
        run = run_of(items, epochs=12, patience=100)
        model = trained(run, data, inputs, tmp_path / name)
        metrics = evaluate_run(run, Evaluation(), model, data, inputs, None, model.with_name("e.parquet"),
                               model.with_name("m.json"))["metrics"]  # fmt: skip
        found[name] = metrics["NDCG@10"]
    assert found["two"] > found["fine"] + 0.1
    assert found["fine"] > found["coarse"]


@pytest.mark.parametrize("items", [{"missing": {"image": 0.3}}, {"axis": "sequence"}, {"backbone": "separate"}])
def test_a_run_that_was_cut_short_goes_on_to_the_digit(
    items: dict[str, Any], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = write_views(tmp_path)
    run = run_of(items, epochs=3, checkpoint_seconds=0.0)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    expected = trained(run, data, inputs, whole)
    steps, step = 0, SequentialRecommender.losses

    def stops(self: SequentialRecommender, histories: Histories, at: Position) -> Losses:
        nonlocal steps
        steps += 1
        if steps == 14:
            raise KeyboardInterrupt
        return step(self, histories, at)

    with monkeypatch.context() as patched:
        patched.setattr(SequentialRecommender, "losses", stops)
        with pytest.raises(KeyboardInterrupt):
            trained(run, data, inputs, cut)
    assert list(cut.glob("state/*/checkpoint.safetensors"))
    assert trained(run, data, inputs, cut).read_bytes() == expected.read_bytes()


def test_training_sees_no_held_out_interaction(tmp_path: Path) -> None:
    weights = []
    for name, swapped in (("as_it_is", False), ("swapped", True)):
        data = write_dataset(tmp_path / name, swap_targets=swapped)
        inputs = write_views(tmp_path / name)
        weights.append(trained(run_of({}, epochs=1), data, inputs, tmp_path / name / "run").read_bytes())
    assert weights[0] == weights[1]


def test_the_tables_are_not_saved_with_the_weights(data: Path, tmp_path: Path) -> None:
    inputs = write_views(tmp_path)
    run = run_of({"missing": {"text": 0.2}}, epochs=1)
    model = trained(run, data, inputs, tmp_path)
    names = set(read_tensors(model))
    assert not [name for name in names if "table_" in name or "has_" in name or "values" in name or "lost_" in name]
    scorer: Scorer = load_scorer(model, run, np.ones(ITEMS + 1, np.int64), inputs)
    assert torch.isfinite(ask(scorer, np.array([[1, 2, 3]]))).all()
    assert json.loads(model.with_name("model.json").read_text())["items"] == ITEMS


# ---------------------------------------------------------------- bad input


def test_one_modality_that_tells_nothing_does_no_harm(data: Path, tmp_path: Path) -> None:
    """All pictures alike: the vectors are finite, the alignment too, and the text still carries the run."""
    inputs = write_views(tmp_path)
    ids = np.arange(1, ITEMS + 1)
    write_item_table(tmp_path / "image.parquet", ids, np.ones((ITEMS, 3)))
    run = run_of({}, epochs=12, patience=100)
    model = SequentialRecommender.build(run, inputs, np.ones(ITEMS + 1, np.int64))
    loss = model.items.auxiliary_losses(model.items(), torch.arange(1, 9))["alignment"]
    assert torch.isfinite(loss)
    assert torch.isfinite(model.items()).all()
    assert hit(run, data, inputs, trained(run, data, inputs, tmp_path)) > 0.7


def test_no_picture_at_all_says_so(tmp_path: Path) -> None:
    inputs = write_views(tmp_path)
    empty = np.zeros(0, np.int64)
    write_item_table(tmp_path / "image.parquet", empty, np.zeros((0, 3)))
    with pytest.raises(ValueError, match=r"image.parquet: has no vector of any item"):
        SequentialRecommender.build(run_of({}), inputs, np.ones(ITEMS + 1, np.int64))
    write_item_sequences(tmp_path / "fine.parquet", empty, [], np.zeros((0, 11)))
    with pytest.raises(ValueError, match=r"items.fine: the table has no row"):
        SequentialRecommender.build(run_of({"image": None}), inputs, np.ones(ITEMS + 1, np.int64))


def test_text_alone_has_no_alignment(tmp_path: Path) -> None:
    """A dataset without pictures: the image branch is left out of the config, and nothing else changes."""
    inputs = write_views(tmp_path)
    model = SequentialRecommender.build(run_of({"image": None, "both": None}), inputs, np.ones(ITEMS + 1, np.int64))
    assert model.items.auxiliary_losses(model.items(), torch.arange(1, 9)) == {}


@pytest.mark.parametrize("items", [{}, {"fine": None}, {"missing": {"image": 1.0}}])
def test_two_processes_train_what_one_does(
    items: dict[str, Any], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever parts a config leaves out: several processes wait for the gradient of all that is trained."""
    monkeypatch.setattr(tessera.recommenders.train, "run_processes", run_processes)
    inputs, found = write_views(tmp_path), []
    for processes in (1, 2):
        run = run_of(items, gradient_clip=0.5, processes=processes)
        assert run.backbone is not None
        run = run.model_copy(update={"backbone": run.backbone.model_copy(update={"dropout": 0.0})})
        output = tmp_path / str(processes) / "model.safetensors"
        launch(run, data, inputs, output, tmp_path / "state" / str(processes), "", None)
        found.append(read_tensors(output))
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, atol=2e-4, rtol=2e-3, msg=name)


def test_a_learned_vector_learns_where_pictures_are_lost() -> None:
    model = encoder(missing={"image": 0.5})
    model().pow(2).sum().backward()
    assert float(model.absent["image"].grad.abs().max()) > 0


def test_rows_in_parts_attend_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    attention = CrossAttention(8, 2)
    queries, keys = torch.randn(7, 3, 8), torch.randn(7, 4, 8)
    for visible in (None, torch.ones(1, 3, 4, dtype=torch.bool), torch.rand(7, 3, 4) < 2.0):
        whole = attention(queries, keys, visible)
        with monkeypatch.context() as patch:
            patch.setattr(attend, "ROWS", 3)
            torch.testing.assert_close(attention(queries, keys, visible), whole)


def test_a_file_that_is_not_given_is_named(tmp_path: Path) -> None:
    inputs = write_views(tmp_path)
    few = RunInputs(tables={name: path for name, path in inputs.tables.items() if name != "fine"})
    with pytest.raises(ValueError, match=r"the item table 'fine' is read, but no file was given"):
        SequentialRecommender.build(run_of({}), few, np.ones(ITEMS + 1, np.int64))


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ({"image": "imag"}, r"systems.s.items.image: unknown name 'imag'; did you mean 'image'\?"),
        ({"image": "fine"}, r"systems.s.items.image: 'fine' has several rows an item; only one is read here"),
        ({"fine": "text"}, r"systems.s.items.fine: 'text' is no table of recipe attributes"),
        ({"image": None, "text": None, "both": None, "fine": None}, "needs a table"),
        ({"fine": None, "backbone": "shared"}, "tables give only one"),
        ({"combine": "gated_sum", "backbone": "separate"}, "gated_sum makes one vector"),
        ({"axis": "sequence", "backbone": "shared"}, "axis: sequence needs backbone joint"),
        ({"heads": 3}, "heads: 3 does not divide width 16"),
        ({"axis": "sequence", "heads": 16}, "half of dim 16 of 'sasrec' must be a multiple of 16 heads"),
        ({"axis": "sequence", "direction": "coarse"}, "direction coarse is for axis item"),
        ({"both": None, "alignment": {"anchor": True}}, "alignment.anchor draws image and text to both"),
        (
            {"image": None, "both": None, "missing": {"image": 0.5}},
            "missing.image: no table that it reads",
        ),
        ({"missing": {"image": 1.5}}, "expected 1 or less"),
        ({"missing": {"picture": 0.5}}, "unknown key 'picture'"),
    ],
)
def test_configs_that_cannot_be_run_are_refused(items: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(config(items))


def test_only_a_dual_view_reads_several_rows_an_item() -> None:
    wrong = config({})
    wrong["systems"]["t"] = {"items": {"table": "fine"}}
    wrong["semantic_ids"] = {"codes": {"quantizer": "rq_kmeans", "tables": "fine", "codes": 8}}
    with pytest.raises(ConfigError) as error:
        load(wrong)
    assert "systems.t.items.table: 'fine' has several rows an item" in str(error.value)
    assert "semantic_ids.codes.tables.0: 'fine' has several rows an item" in str(error.value)


# ---------------------------------------------------------------- the artifact


def test_item_sequences_are_read_by_id_and_position(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    rows = np.arange(8, dtype=np.float32).reshape(4, 2)
    write_item_sequences(path, np.array([2, 2, 2, 5]), ["a", "b", "c", "a"], rows)
    found = read_item_sequences(path, 6)
    vectors, present = found.dense(), found.present
    assert vectors.shape == (7, 3, 2)
    assert present.sum(1).tolist() == [0, 0, 3, 0, 0, 1, 0]
    np.testing.assert_array_equal(vectors[2], rows[:3])
    table = pq.read_table(path)
    pq.write_table(table.take([3, 1, 0, 2]), path)  # keeps the metadata
    again = read_item_sequences(path, 6)
    np.testing.assert_array_equal(again.dense(), vectors)
    np.testing.assert_array_equal(again.present, present)
    pq.write_table(table.take([0, 2, 3]), path)
    with pytest.raises(ArtifactError, match="item 2 has position 2, expected 1"):
        read_item_sequences(path, 6)
    pq.write_table(table, path)
    with pytest.raises(ArtifactError, match=r"5 is not an id in 1\.\.4"):
        read_item_sequences(path, 4)
    write_item_sequences(path, np.array([1, 3]), ["a", "a"], np.array([[1, 2], [np.nan, 2]]))
    with pytest.raises(ArtifactError, match="a vector of item 3 holds NaN"):
        read_item_sequences(path, 4)
