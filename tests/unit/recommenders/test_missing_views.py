"""Items that lose a view: the same items for every system, a vector that was learned, or the mean where none was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pattern import ITEMS, make_run, reads, write_dataset
from torch import Tensor

from tessera.artifacts.codes import Part, SemanticIds
from tessera.artifacts.files import read_json
from tessera.artifacts.tables import read_table, write_item_table, write_table
from tessera.plan.graph import Plan
from tessera.recommenders.evaluate import evaluate_run, load_scorer
from tessera.recommenders.item_encoders.semantic_ids import SemanticIdEncoder
from tessera.recommenders.item_encoders.table import TableItemEncoder
from tessera.recommenders.item_tokens import RawBranch
from tessera.recommenders.missing import Lost, Present, lost_rows
from tessera.recommenders.train import train_run
from tessera.settings.base import ConfigError
from tessera.settings.config import load
from tessera.settings.evaluation import Evaluation
from tessera.settings.items.semantic_ids import SemanticIdItems
from tessera.settings.items.table import TableItems
from tessera.settings.losses.cross_entropy import CrossEntropy
from tessera.settings.missing import Missing

COUNT, WIDTH, DIM = 12, 5, 4


def table() -> tuple[Tensor, Tensor]:
    vectors = torch.randn(COUNT + 1, WIDTH, generator=torch.Generator().manual_seed(1))
    present = torch.ones(COUNT + 1, dtype=torch.bool)
    present[0] = False
    return vectors, present


def test_the_same_items_lose_it_whatever_they_lose_it_from() -> None:
    missing = Missing(image=0.4, text=0.3, seed=2)
    image, text, both = (lost_rows(missing, made, 500) for made in (["image"], ["text"], ["image", "text"]))
    assert image is not None
    assert text is not None
    assert both is not None
    assert torch.equal(image.rows | text.rows, both.rows)
    assert 0.3 < float(image.rows.double().mean()) < 0.5
    assert lost_rows(missing, [], 500) is None
    more = lost_rows(Missing(image=0.6, seed=2), ["image"], 500)
    assert more is not None
    assert bool((more.rows | ~image.rows).all())


def encoders(lost: Lost | None) -> list[Any]:
    """Everything that reads a frozen table, with random weights of some size."""
    torch.manual_seed(0)
    vectors, present = table()
    codes = SemanticIds(np.vstack([[-1, -1], np.arange(2 * COUNT).reshape(COUNT, 2) % 3]), (Part("t", (3, 3)),))
    made = [
        TableItemEncoder(TableItems(table="t", adapter=[]), vectors.clone(), present.clone(), DIM, None, lost),
        SemanticIdEncoder(SemanticIdItems(semantic_ids="c", table="t"), codes, {}, DIM, (vectors, present), lost),
        RawBranch(vectors.clone(), present.clone(), DIM, False, lost),
    ]
    with torch.no_grad():
        for module in made:
            for parameter in module.parameters():
                parameter.add_(torch.randn_like(parameter))
    return made


def vectors_of(module: Any) -> Tensor:
    found: Tensor = module(slice(None)) if isinstance(module, RawBranch) else module()
    return found.detach()


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize(("when", "training", "judged"), [("training", 1, 0), ("test", 0, 1), ("both", 1, 1)])
def test_rows_are_lost_when_asked(number: int, when: str, training: int, judged: int) -> None:
    rows = torch.zeros(COUNT + 1, dtype=torch.bool)
    rows[[2, 7]] = True
    some, plain = encoders(Lost(rows, when))[number], encoders(None)[number]
    for mode, lost in ((True, training), (False, judged)):
        moved = (vectors_of(some.train(mode)) - vectors_of(plain.train(mode))).abs().amax(1) > 1e-6
        assert set(moved.nonzero().flatten().tolist()) - {0} == ({2, 7} if lost else set())


@pytest.mark.parametrize("number", range(3))
def test_what_was_never_learned_is_never_met(number: int) -> None:
    """All items have a row while training: the learned vector got no gradient, and judging does not read it."""
    rows = torch.zeros(COUNT + 1, dtype=torch.bool)
    rows[[2, 7]] = True
    module = encoders(Lost(rows, "test"))[number]
    vectors_of(module)
    module.train()
    made = module(slice(1, None)) if isinstance(module, RawBranch) else module()[1:]
    made.square().sum().backward()
    absent = (module.table if isinstance(module, SemanticIdEncoder) else module).absent
    assert absent.grad is None or not absent.grad.any()
    module.eval()
    before = vectors_of(module)[1:]
    with torch.no_grad():
        absent.add_(100.0)
    torch.testing.assert_close(vectors_of(module)[1:], before, rtol=0, atol=0)
    assert torch.isfinite(before).all()


def test_the_mean_stands_for_what_training_never_missed() -> None:
    vectors, present = table()
    rows = torch.zeros(COUNT + 1, dtype=torch.bool)
    rows[3] = True
    there = Present(present, Lost(rows, "test")).eval()
    filled = there.fill(vectors, torch.full((WIDTH,), 9.0))
    kept = [item for item in range(1, COUNT + 1) if item != 3]
    torch.testing.assert_close(filled[3], vectors[kept].mean(0))
    torch.testing.assert_close(filled[0], torch.full((WIDTH,), 9.0))
    assert not there.learns
    rows_in_training = Present(present, Lost(rows, "both")).eval()
    assert rows_in_training.learns
    torch.testing.assert_close(rows_in_training.fill(vectors, torch.full((WIDTH,), 9.0))[3], torch.full((WIDTH,), 9.0))


# ---------------------------------------------------------------- through a config


TABLES = ["file", "pictures", "own", "said", "told", "asked", "true"]


def config(**changes: Any) -> dict[str, Any]:
    vectors = {"recipe": "vectors", "path": "t.npy"}
    return {
        "datasets": {"x": {"source": "bazaar"}},
        "captions": {"seen": {"model": "small"}, "all": {"model": "small", "source": "both"}},
        "tables": {
            "file": vectors, "pictures": {**vectors, "made_from": ["image"]},
            "own": {"recipe": "text", "model": "small"},
            "said": {"recipe": "text", "model": "small", "captions": ["seen"], "only_captions": True},
            "told": {"recipe": "text", "model": "small", "captions": ["seen"]},
            "asked": {"recipe": "hidden", "model": "small", "source": "both"},
            "true": {"recipe": "latent", "view": "image"},
        },
        "systems": {name: {"items": {"table": name}} for name in TABLES},
        "experiment": {"datasets": ["x"], "systems": TABLES, "backbones": ["sasrec"], "seeds": [1]},
        **changes,
    }  # fmt: skip


def test_a_config_tells_every_system_what_its_tables_lose() -> None:
    every = {run.system: run for run in Plan(load(config(missing={"image": 0.5}))).runs}
    runs = {name: run for name, run in every.items() if run.missing is not None}
    assert {name: run.modalities[name] for name, run in runs.items()} == {
        "pictures": ["image"], "said": ["image"], "told": ["image", "text"], "asked": ["image", "text"],
        "true": ["image"],
    }  # fmt: skip
    assert all(not every[name].modalities and not every[name].remarks for name in ("file", "own"))
    assert {run.missing for run in runs.values()} == {Missing(image=0.5)}
    assert {tuple(run.remarks) for run in runs.values()} == {("without 50% of the pictures (item_consistent)",)}
    assert (
        Missing(image=0.3, text=0.2, when="test").remark
        == "without 30% of the pictures and 20% of the texts, when judged (item_consistent)"
    )
    assert Missing(image=0.004).remark == "without 0.4% of the pictures (item_consistent)"
    plain = Plan(load(config())).runs
    assert all(run.missing is None and not run.modalities for run in plain)
    some = config(missing={"image": 0.5})
    some["systems"]["said"]["missing"] = {"image": 0.0}
    assert {run.system for run in Plan(load(some)).runs if run.missing} == set(runs) - {"said"}


def test_what_cannot_be_lost_is_refused() -> None:
    wrong = config()
    wrong["systems"]["own"]["missing"] = {"image": 0.5}
    with pytest.raises(ConfigError, match=r"systems.own.missing.image: no table that it reads is made from it"):
        load(wrong)
    old = config()
    old["systems"]["own"] = {"items": {"kind": "dual_view", "text": "own", "missing": {"text": 0.5}}}
    with pytest.raises(ConfigError, match=r"'missing' stands beside 'items' now"):
        load(old)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("missing", {"image": 1.5}, r"missing\.image: expected 1 or less .got 1\.5"),
        ("missing", {"text": -0.1}, r"missing\.text: expected 0 or more .got -0\.1"),
        ("missing", {"image": float("nan")}, r"missing\.image: "),
        ("robustness", {"rates": [0.0, 1.5]}, r"robustness\.rates: rates lie from 0 to 1 \(got 1\.5\)"),
        ("robustness", {"rates": [-0.5, 1.0]}, r"robustness\.rates: rates lie from 0 to 1 \(got -0\.5\)"),
    ],
)
def test_rates_are_shares(key: str, value: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load({**config(), key: value})


def test_a_run_is_trained_and_judged_under_its_losses(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data")
    path = tmp_path / "t.parquet"
    write_item_table(path, np.arange(1, ITEMS + 1), np.eye(ITEMS, dtype=np.float32))
    found, apart = {}, set()
    for share in (0.0, 1.0):
        run = make_run(system={"items": {"table": "t"}}, epochs=12, patience=100)
        run = run.model_copy(update={"missing": Missing(text=share), "modalities": {"t": ["text"]}})
        folder = tmp_path / str(share)
        train_run(run, data, reads(path), folder / "model.safetensors", folder / "state")
        files = folder / "model.safetensors", folder / "e.parquet", folder / "m.json"
        judged = evaluate_run(run, Evaluation(), files[0], data, reads(path), None, *files[1:])
        found[share] = judged["metrics"]["Hit@5"]
        recorded = read_json(files[2])
        assert Missing.model_validate(recorded["missing"]) == Missing(text=share)
        apart.add(recorded["apart_from_losses"])
        scorer = load_scorer(files[0], run, np.ones(ITEMS + 1, np.int64), reads(path))
        distinct = len({tuple(row) for row in scorer.item_vectors.tolist()})  # type: ignore[attr-defined]
        assert distinct == (ITEMS if share == 0.0 else 1)
    assert found[0.0] > found[1.0] + 0.2
    assert len(apart) == 1  # the report may draw them on one line


def test_runs_are_apart_in_everything_but_losses_name_and_seed() -> None:
    written = config()
    written["systems"] |= {
        "half": {**written["systems"]["said"], "missing": {"image": 0.5}, "backbones": ["sasrec"], "seeds": [7]},
        "slow": {**written["systems"]["said"], "training": {"learning_rate": 1e-5}},
        "bound": {**written["systems"]["said"], "loss": {"kind": "bce"}},
    }
    written["experiment"]["systems"] = [*written["systems"]]
    runs = {run.system: run for run in Plan(load(written)).runs}
    same = runs["said"].apart_from_losses
    assert runs["half"].missing == Missing(image=0.5)
    assert runs["half"].apart_from_losses == same
    others = {name for name, run in runs.items() if run.apart_from_losses == same} - {"said", "half"}
    assert not others, others


LEFT_OUT = [5, 9]


@pytest.mark.parametrize("backbone", ["sasrec", "gru4rec", "bert4rec"])
@pytest.mark.parametrize("cold", ["left_out", "negatives"])
def test_items_without_a_row_that_training_never_met_get_the_mean(tmp_path: Path, backbone: str, cold: str) -> None:
    """Only cold items lack a row, and the loss leaves them out: their vector was never learned."""
    data = write_dataset(tmp_path / "data")
    rows = read_table(data / "interactions.parquet", "interactions").to_pandas()
    rows = rows[~(rows["item"].isin(LEFT_OUT) & (rows["split"] != "test"))]
    write_table(data / "interactions.parquet", pa.Table.from_pandas(rows, preserve_index=False), "interactions")
    known = np.setdiff1d(np.arange(1, ITEMS + 1), LEFT_OUT)
    write_item_table(tmp_path / "t.parquet", known, np.eye(ITEMS, dtype=np.float32)[known - 1])
    run = make_run(backbone, system={"items": {"table": "t"}}, epochs=2)
    run = run.model_copy(update={"loss": CrossEntropy(cold_items=cold)})  # type: ignore[arg-type]
    weights = tmp_path / "run/model.safetensors"
    train_run(run, data, reads(tmp_path / "t.parquet"), weights, tmp_path / "state")
    popularity = np.bincount(rows["item"][rows["split"] == "train"], minlength=ITEMS + 1)
    scorer: Any = load_scorer(weights, run, popularity, reads(tmp_path / "t.parquet"))
    vectors = scorer.item_vectors
    items = next(module for module in scorer.model.modules() if isinstance(module, TableItemEncoder))
    learned = not torch.equal(items.absent, items.present.start)  # type: ignore[arg-type]
    assert learned == (cold == "negatives")  # what nothing reads does not move, not even for the padding
    expected = items.absent if learned else vectors[known - 1].mean(0)
    for item in LEFT_OUT:
        torch.testing.assert_close(vectors[item - 1], expected)


def test_codes_that_training_never_missed() -> None:
    """Items without codes come after training, or are left out of it: the mean of all stands for them."""
    torch.manual_seed(0)
    rows = np.arange(2 * (COUNT + 1)).reshape(COUNT + 1, 2) % 3
    rows[[0, 4]] = -1
    codes = SemanticIds(rows, (Part("t", (3, 3)),))
    made = SemanticIdEncoder(SemanticIdItems(semantic_ids="c", adapter=[]), codes, {}, DIM).eval()
    part = made._part(0)
    torch.testing.assert_close(part[4], part[[n for n in range(1, COUNT + 1) if n != 4]].mean(0))
    with torch.no_grad():
        made.absent[0].add_(1.0)
    torch.testing.assert_close(made._part(0)[4], made.absent[0])
