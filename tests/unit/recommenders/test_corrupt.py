"""One trained run at many missing rates: what items lose is what `missing` takes, and positions lose for themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import tiny_mme_sid
import torch
from pattern import ITEMS, write_dataset

from tessera.artifacts.files import read_json
from tessera.artifacts.models import read_model, write_model
from tessera.artifacts.sequences import write_item_sequences
from tessera.artifacts.tables import ArtifactError, read_table, write_item_table
from tessera.data.dataset import load_dataset
from tessera.evaluation.histories import Histories
from tessera.evaluation.metrics import ndcg
from tessera.plan.graph import Noun, Plan
from tessera.plan.jobs import Jobs
from tessera.recommenders.availability import lost_items
from tessera.recommenders.corrupt import HistoryLosses, _subsets, corrupt_run
from tessera.recommenders.evaluate import evaluate_run
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.missing import Present
from tessera.recommenders.systems.base import as_scorer, recommender
from tessera.recommenders.systems.pad import PAD
from tessera.recommenders.train import train_run
from tessera.settings.base import ConfigError
from tessera.settings.config import load
from tessera.settings.evaluation import Evaluation
from tessera.settings.kinds import settings_class, tags
from tessera.settings.missing import ITEM_PATTERNS, Missing, Pattern, Robustness, at_rate
from tessera.settings.runs import Run
from tessera.settings.systems.backbone import BackboneSystem
from tessera.settings.systems.base import TrainedSystem

EVERY: list[Pattern] = list(get_args(Pattern))
CPU = torch.device("cpu")
RATES = [0.0, 0.4, 1.0]
RNG = np.random.default_rng(5)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("corrupt"))


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> RunInputs:
    """A table made from pictures, one from texts that lacks five items, and one from both."""
    folder = tmp_path_factory.mktemp("tables")
    made = {"pictures": ["image"], "texts": ["text"], "told": ["image", "text"]}
    paths = {}
    for name in made:
        items = np.arange(6 if name == "texts" else 1, ITEMS + 1)
        rows = np.eye(ITEMS, dtype=np.float32)[items - 1] + RNG.normal(0, 0.1, (len(items), ITEMS))
        paths[name] = str(folder / f"{name}.parquet")
        write_item_table(paths[name], items, rows.astype(np.float32))
    paths["pieces"] = str(folder / "pieces.parquet")
    owners = np.repeat(np.arange(1, ITEMS + 1), 2)
    write_item_sequences(paths["pieces"], owners, ["units", "kind"] * ITEMS, RNG.normal(size=(2 * ITEMS, 11)))
    return RunInputs(tables=paths, modalities={**made, "pieces": ["text"]})


def config(systems: dict[str, Any], **more: Any) -> dict[str, Any]:
    shape: dict[str, Any] = {"dim": 16, "max_length": 12, "dropout": 0.1}
    return {
        "datasets": {"x": {"source": "bazaar"}},
        "backbones": dict.fromkeys(("sasrec", "gru4rec", "bert4rec", "mamba", "hstu", "srgnn"), shape),
        "tables": {
            "pictures": {"recipe": "vectors", "path": "p.npy", "made_from": ["image"]},
            "texts": {"recipe": "vectors", "path": "t.npy", "made_from": ["text"]},
            "told": {"recipe": "vectors", "path": "b.npy", "made_from": ["image", "text"]},
            "pieces": {"recipe": "attributes", "model": "small"},
        },
        "systems": systems,
        "training": {"epochs": 2, "batch_tokens": 400, "learning_rate": 0.01, "device": "cpu"},
        "experiment": {"datasets": ["x"], "systems": list(systems), "backbones": ["sasrec"], "seeds": [1]},
        **more,
    }


def run_of(system: dict[str, Any], backbone: str = "sasrec") -> Run:
    written = config({"s": system, "other": {"items": {"table": "texts"}, "backbones": ["sasrec"]}})
    written["experiment"] |= {"systems": ["s"]}
    written["experiment"]["backbones"] = [backbone]
    return Plan(load(written)).runs[0]


SYSTEMS: dict[str, tuple[dict[str, Any], str]] = {
    "table": ({"items": {"table": "told", "id_residual": True}}, "sasrec"),
    "gru": ({"items": {"table": "pictures"}}, "gru4rec"),
    "distilled": ({"recommender": "distilled", "items": {"table": "told"}, "teacher": "other"}, "sasrec"),
    "bert": ({"items": {"table": "texts"}}, "bert4rec"),
    "mamba": ({"items": {"table": "texts"}}, "mamba"),
    "srgnn": ({"items": {"table": "texts"}}, "srgnn"),
    "dmesr": ({"items": {"kind": "dual_view", "image": "pictures", "text": "texts", "width": 16}}, "sasrec"),
    "pad": ({"recommender": "pad", "table": "texts", "adapter": [16]}, "sasrec"),
    "findrec": (
        {"recommender": "findrec", "text": "texts", "image": "pictures", "width": 16, "experts": 2, "alignment": None},
        "sasrec",
    ),
    "i3_mrec": (
        {"recommender": "i3_mrec", "text": "texts", "image": "pictures", "adapter": [16]},
        "sasrec",
    ),
    "along": (
        {
            "items": {
                "kind": "dual_view",
                "image": "pictures",
                "text": "texts",
                "fine": "pieces",
                "axis": "sequence",
                "width": 16,
            }
        },
        "sasrec",
    ),
    "eimf": ({"recommender": "eimf", "items": {"table": "told"}, "dim": 16, "interests": None}, "sasrec"),
    "cider": (
        {
            "recommender": "cider",
            "counterfactual": {"tau": 0.0},
            "items": {"kind": "dual_view", "image": "pictures", "text": "texts", "width": 16},
        },
        "sasrec",
    ),
}


def inputs_of(run: Run, tables: RunInputs) -> RunInputs:
    modalities = {name: tables.modalities[name] for name in run.tables}
    return tables.model_copy(update={"modalities": modalities})


def built(run: Run, inputs: RunInputs) -> Any:
    """The untrained system as the judge asks it, whose vectors for what is absent count as learned."""
    torch.manual_seed(0)
    model = recommender(run).build(run, inputs.under(run), np.ones(ITEMS + 1, np.int64))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    if isinstance(model, PAD):  # in its last phase, where all towers score
        model.stage.fill_(len(model.phases) - 1)
    for module in model.modules():
        if isinstance(module, Present):
            module.learns, module.start = True, None
    return as_scorer(model, CPU)


def histories(data: Path) -> Histories:
    cases = load_dataset(data).cases("test")
    rows = [cases.history(case)[-10:] for case in range(12)]
    items = np.zeros((12, 10), np.int64)
    for row, history in enumerate(rows):
        items[row, : len(history)] = history
    return Histories.of(items, users=np.arange(1, 13))


def check_positions(run: Run, inputs: RunInputs, data: Path) -> None:
    """Where positions lose what their items lose everywhere, histories are read as those of items without it."""
    lost = sorted({modality for made in inputs.modalities.values() for modality in made})
    states = [
        built(run, inputs.model_copy(update={"judged": Missing.model_validate(dict.fromkeys(gone, 1.0))}))
        for gone in _subsets(lost)  # type: ignore[arg-type]
    ]
    asked = histories(data)
    whole, scorer = states[0], HistoryLosses(states, "item_consistent", lost, 3)  # type: ignore[arg-type]
    torch.testing.assert_close(scorer.at(0.0)(asked), whole(asked), rtol=0, atol=0)
    for rate in (0.5, 1.0):
        shares = dict.fromkeys(lost, rate)
        without = built(run, inputs.model_copy(update={"judged": Missing.model_validate({**shares, "seed": 3})}))
        moved = scorer.at(rate).moved(asked)
        assert torch.equal(moved.items == 0, asked.items == 0)
        with torch.no_grad():
            mine = whole.model.users(moved, scorer.catalogue)
            theirs = without.model.users(asked, without.prepared)
            unmoved = whole.model.users(asked, whole.prepared)
        torch.testing.assert_close(mine, theirs)
        assert not torch.allclose(mine, unmoved)


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_position_reads_the_vector_of_an_item_that_lost_it(name: str, data: Path, tables: RunInputs) -> None:
    run = run_of(*SYSTEMS[name])
    check_positions(run, inputs_of(run, tables), data)


@pytest.mark.parametrize("pattern", ["feature", "block"])
def test_an_item_is_the_same_in_every_state(pattern: Pattern, tables: RunInputs) -> None:
    """Where nothing is lost in truth, a graph of items has the nodes that it had."""
    run = run_of({"items": {"table": "told"}}, "srgnn")
    whole, again = (built(run, inputs_of(run, tables)) for _ in range(2))
    asked = Histories.of(RNG.integers(1, 5, (6, 9)), users=np.arange(1, 7))
    expected = whole(asked)
    scorer = HistoryLosses([whole, again], pattern, ["text"], 3).at(0.5)
    assert not torch.equal(scorer.moved(asked).items, asked.items)
    torch.testing.assert_close(scorer(asked), expected, rtol=0, atol=0)


def test_so_it_does_of_items_that_a_language_model_reads(data: Path, tmp_path: Path) -> None:
    inputs = tiny_mme_sid.write_inputs(tmp_path).model_copy(update={"modalities": {"text": ["text"]}})
    check_positions(tiny_mme_sid.make_run(), inputs, data)


def test_every_system_that_says_so_is_tried() -> None:
    saying = {tag for tag in tags("systems") if settings_class("systems", tag).HISTORY_LOSSES}
    assert saying == {system.get("recommender", "backbone") for system, _ in SYSTEMS.values()} | {"mme_sid"}


# ---------------------------------------------------------------- the stage


@pytest.fixture(scope="module")
def trained(data: Path, tables: RunInputs, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    run = run_of({"items": {"kind": "dual_view", "image": "pictures", "text": "texts", "width": 16}})
    weights = tmp_path_factory.mktemp("run") / "model.safetensors"
    train_run(run, data, tables, weights, weights.parent / "state")
    return run, weights


def corrupted(
    run: Run, weights: Path, data: Path, tables: RunInputs, output: Path, batch_users: int = 256, **more: Any
) -> Any:
    settings = Robustness.model_validate({"rates": RATES, "seed": 2, **more})
    judge = Evaluation(batch_users=batch_users)
    corrupt_run(run, settings, judge, weights, data, inputs_of(run, tables), None, output)
    return read_table(output, "corruption").to_pandas()


def test_items_lose_what_missing_takes(
    trained: tuple[Run, Path], data: Path, tables: RunInputs, tmp_path: Path
) -> None:
    run, weights = trained
    rows = corrupted(run, weights, data, tables, tmp_path / "c.parquet", lose=["image", "both"],
                     patterns=["item_consistent", "one_modality"])  # fmt: skip
    assert set(zip(rows["pattern"], rows["lose"], strict=True)) == {
        ("item_consistent", "image"), ("item_consistent", "both"), ("one_modality", "both"),
    }  # fmt: skip
    for (pattern, lose, rate), part in rows.groupby(["pattern", "lose", "rate"]):
        missing = at_rate(pattern, lose, rate, 2)
        own = run.model_copy(update={"missing": missing, "modalities": inputs_of(run, tables).modalities})
        files = tmp_path / "e.parquet", tmp_path / "m.json"
        evaluate_run(own, Evaluation(), weights, data, tables, None, *files)
        expected = read_table(files[0], "evaluation")
        np.testing.assert_array_equal(part["rank"], expected.column("rank").to_numpy())
        np.testing.assert_array_equal(part["user"], expected.column("user").to_numpy())
        if rate:
            assert read_json(files[1])["missing"]["pattern"] == pattern
    mean = (
        rows[rows["lose"] == "both"].groupby(["pattern", "rate"])["rank"].apply(lambda r: ndcg(r.to_numpy(), 10).mean())
    )
    assert mean["item_consistent", 0.0] > mean["item_consistent", 1.0] + 0.05


def test_batches_change_nothing_and_a_repeat_is_the_same_file(
    trained: tuple[Run, Path], data: Path, tables: RunInputs, tmp_path: Path
) -> None:
    run, weights = trained
    first = corrupted(run, weights, data, tables, tmp_path / "a.parquet", patterns=EVERY)
    some: list[Pattern] = ["item_consistent", "feature", "block"]
    small, again = (
        corrupted(run, weights, data, tables, tmp_path / f"{batch}.parquet", batch, patterns=some, rates=[0, 0.4, 1])
        for batch in (16, 256)
    )
    corrupted(run, weights, data, tables, tmp_path / "b.parquet", patterns=some, rates=[0, 0.4, 1])
    assert (tmp_path / "256.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert (small["rank"] - again["rank"]).abs().mean() < 0.02  # scores of other batches may differ by rounding
    for pattern in EVERY:
        ranks = {rate: part["rank"].to_numpy() for rate, part in first[first["pattern"] == pattern].groupby("rate")}
        whole = first[(first["pattern"] == "item_consistent") & (first["rate"] == 0)]["rank"].to_numpy()
        np.testing.assert_array_equal(ranks[0.0], whole)
        assert (ranks[0.4] != whole).any()
    alike = {p: first[(first["pattern"] == p) & (first["rate"] == 1.0)]["rank"].to_numpy() for p in EVERY}
    of_histories = [alike[pattern] for pattern in EVERY if pattern not in ITEM_PATTERNS]
    for ranks in of_histories[1:]:  # all is lost, however it was drawn
        np.testing.assert_array_equal(ranks, of_histories[0])


def test_who_reads_nothing_of_it_is_flat(data: Path, tmp_path: Path, tables: RunInputs) -> None:
    run = run_of({"items": {"table": "pictures"}})
    weights = tmp_path / "model.safetensors"
    train_run(run, data, tables, weights, tmp_path / "state")
    rows = corrupted(
        run, weights, data, tables, tmp_path / "c.parquet", lose=["text"], patterns=["feature", "item_consistent"]
    )
    assert rows.groupby("user")["rank"].nunique().eq(1).all()
    files = tmp_path / "e.parquet", tmp_path / "m.json"
    evaluate_run(run, Evaluation(), weights, data, tables, None, *files)
    np.testing.assert_array_equal(
        rows[rows["rate"] == 0]["rank"].to_numpy()[:80], read_table(files[0], "evaluation").column("rank").to_numpy()
    )


def test_who_reads_times_is_asked_with_them(data: Path, tmp_path: Path, tables: RunInputs) -> None:
    run = run_of({"items": {"table": "pictures"}}, "hstu")
    run = run.model_copy(update={"training": run.training.model_copy(update={"epochs": 0})})
    weights = tmp_path / "model.safetensors"
    timed = write_dataset(tmp_path / "timed", timed=True)
    train_run(run, timed, tables, weights, tmp_path / "state")
    tensors, description = read_model(weights)
    loud = {name: 5 * torch.randn(part.shape) for name, part in tensors.items() if name.endswith(".ages")}
    write_model(weights, {**tensors, **loud}, description)
    rows = corrupted(run, weights, timed, tables, tmp_path / "c.parquet", patterns=["item_consistent", "feature"])
    whole = rows[rows["rate"] == 0]["rank"].to_numpy()
    for name, folder in (("timed", timed), ("untimed", data)):
        files = tmp_path / f"{name}.parquet", tmp_path / "m.json"
        evaluate_run(run, Evaluation(), weights, folder, tables, None, *files)
        ranks = np.tile(read_table(files[0], "evaluation").column("rank").to_numpy(), len(whole) // 80)
        assert np.array_equal(whole, ranks) == (name == "timed")


def test_training_losses_stay_what_they_were(data: Path, tmp_path: Path, tables: RunInputs) -> None:
    """What is lost at test replaces what the run loses when judged, not what its training met."""
    run = run_of({"items": {"table": "pictures"}})
    run = run.model_copy(update={"missing": Missing(image=0.5), "modalities": {"pictures": ["image"]}})
    inputs = inputs_of(run, tables).under(run)
    own = recommender(run).build(run, inputs, np.ones(ITEMS + 1, np.int64)).items.present  # type: ignore[attr-defined]
    judged = inputs.model_copy(update={"judged": Missing()})
    whole = recommender(run).build(run, judged, np.ones(ITEMS + 1, np.int64)).items.present  # type: ignore[attr-defined]
    gone = torch.from_numpy(lost_items("item_consistent", {"image": 0.5}, 0, ITEMS)["image"])
    for present in (own, whole):
        assert present.learns
        assert torch.equal(present.train()(), present.present & ~gone)
    assert torch.equal(own.eval()(), own.present & ~gone)
    assert torch.equal(whole.eval()(), whole.present)


def test_all_lost_takes_the_mean_of_what_there_was() -> None:
    """Where training met every row, and every row is lost at test, nothing random stands for them."""
    from tessera.recommenders.missing import Lost

    present = torch.tensor([False, True, True, False])
    there = Present(present, Lost(torch.ones(4, dtype=torch.bool), "test")).eval()
    absent = torch.full((2,), 9.0)
    there.watch(absent)
    vectors = torch.tensor([[0.0, 0.0], [1.0, 2.0], [3.0, 4.0], [7.0, 7.0]])
    filled = there.fill(vectors, absent)
    assert torch.equal(filled[1:], torch.tensor([[2.0, 3.0]] * 3))


def test_nothing_else_depends_on_the_rates() -> None:
    """Training and the plain evaluation carry nothing of it, and its ranks nothing of cut-offs."""
    systems = {"s": {"items": {"table": "texts"}}, "i": {"items": "ids"}, "p": {"items": {"table": "pictures"}}}

    def jobs(**more: Any) -> Jobs:
        return Jobs(Plan(load(config(systems, **more))))

    noun = Noun("run", "s/sasrec/seed-1")
    plain, first, second = jobs(), jobs(robustness={}), jobs(robustness={"rates": [0, 1]})
    for before, after in ((plain, first), (first, second)):
        assert before.settings(noun, "x") == after.settings(noun, "x")
        assert before.evaluation(noun) == after.evaluation(noun)
        assert before.comparison.table("x") == after.comparison.table("x")
        assert before.comparison.corruption(noun) != after.comparison.corruption(noun)
        assert before.comparison.robustness("x") != after.comparison.robustness("x")
    cut = jobs(robustness={}, evaluation={"cutoffs": [5, 10], "cold_targets": "drop"})
    assert cut.comparison.corruption(noun) == first.comparison.corruption(noun)
    assert cut.comparison.robustness("x") != first.comparison.robustness("x")
    assert jobs(robustness={}, evaluation={"ties": "pessimistic"}).comparison.corruption(
        noun
    ) != first.comparison.corruption(noun)
    readers = {lose: jobs(robustness={"lose": [lose]}).comparison.corrupted("x") for lose in ("image", "text", "both")}
    assert [[path.split("/")[4] for path in paths] for paths in readers.values()] == [["p"], ["s"], ["s", "p"]]
    assert plain.comparison.corrupted("x") == []
    # who loses something of its own when judged has it back at every rate, though it reads nothing that the rates take
    for when, expected in (("both", ["s", "p"]), ("test", ["s", "p"]), ("training", ["p"])):
        paths = jobs(robustness={"lose": ["image"]}, missing={"text": 0.5, "when": when}).comparison.corrupted("x")
        assert [path.split("/")[4] for path in paths] == expected


# ---------------------------------------------------------------- what is refused, and what is said


def test_what_a_table_lacks_is_said_and_stays_lacking(
    trained: tuple[Run, Path], data: Path, tables: RunInputs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, weights = trained
    with caplog.at_level("INFO"):
        corrupted(run, weights, data, tables, tmp_path / "c.parquet")
    assert "table texts: 5 of 30 items have no row of their own at any rate" in caplog.text
    assert "table pictures" not in caplog.text


def test_a_table_without_any_row_is_refused(
    trained: tuple[Run, Path], data: Path, tables: RunInputs, tmp_path: Path
) -> None:
    run, weights = trained
    write_item_table(tmp_path / "none.parquet", np.zeros(0, np.int32), np.zeros((0, ITEMS), np.float32))
    empty = tables.model_copy(update={"tables": {**tables.tables, "texts": str(tmp_path / "none.parquet")}})
    with pytest.raises(ArtifactError, match="has no vector of any item of this dataset"):
        corrupted(run, weights, data, empty, tmp_path / "c.parquet")
    assert not (tmp_path / "c.parquet").exists()


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"rates": [0, 1.2, 1]}, {}, r"robustness.rates: .*from 0 to 1 \(got 1.2\)"),
    ({"rates": [-0.5, 1]}, {}, r"robustness.rates: .*from 0 to 1 \(got -0.5\)"),
    ({"rates": [0.1, 1]}, {}, "robustness.rates: .*ascending rates from 0 to 1"),
    ({"rates": [0, 0.5]}, {}, "robustness.rates: .*ascending rates from 0 to 1"),
    ({"rates": []}, {}, "robustness.rates"),
    ({"patterns": ["item_consistant"]}, {}, "item_consistent"),
    ({"patterns": ["feature", "feature"]}, {}, "robustness.patterns: names something twice: 'feature'"),
    ({"patterns": ["one_modality"], "lose": ["image"]}, {}, "robustness.lose: .*one_modality takes one of both"),
    ({"lose": ["audio"]}, {}, "robustness.lose.0"),
    ({"lose": ["text"]}, {"s": {"items": {"table": "pictures"}}}, "robustness.lose: no system reads .* from text"),
    ({"lose": ["both"]}, {"s": {"items": "ids"}}, "robustness.lose: no system reads a table .*neither image nor text"),
]  # fmt: skip


@pytest.mark.parametrize(("robustness", "systems", "expected"), REFUSED)
def test_what_cannot_be_judged_is_refused(robustness: dict[str, Any], systems: dict[str, Any], expected: str) -> None:
    written = config(systems or {"s": {"items": {"table": "told"}}}, robustness=robustness)
    with pytest.raises(ConfigError, match=expected):
        load(written)


def test_a_system_that_does_not_say_so_is_not_asked_for_histories(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not TrainedSystem.HISTORY_LOSSES
    monkeypatch.setattr(BackboneSystem, "HISTORY_LOSSES", False)
    systems = {"s": {"items": {"table": "told"}}, "id": {"items": "ids"}}
    load(config(systems, robustness={"patterns": ["item_consistent", "one_modality"]}))
    with pytest.raises(ConfigError) as refused:
        load(config(systems, robustness={"patterns": ["item_consistent", "block"]}))
    assert str(refused.value).splitlines() == [
        "config: robustness.patterns.1: 'block' is drawn anew for every history, but systems.s does not read histories "
        "by item vectors alone; take item_consistent or one_modality, or leave it out"
    ]


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        (
            {"pattern": "feature", "image": 0.5},
            "missing.pattern: 'feature' is a pattern of histories.*robustness.patterns",
        ),
        ({"pattern": "one_modality", "image": 0.5}, r"missing: .*one_modality has one share.*got image 0.5 and text 0"),
        ({"image": 1.5}, "missing.image"),
        ({"image": 0.5, "when": "train"}, "missing.when: .*training"),
    ],
)
def test_what_cannot_be_missing_is_refused(missing: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        load(config({"s": {"items": {"table": "told"}}}, missing=missing))


def test_one_modality_is_told_beside_the_numbers() -> None:
    missing = {"pattern": "one_modality", "image": 0.5, "text": 0.5, "when": "training"}
    (run,) = Plan(load(config({"s": {"items": {"table": "told"}}}, missing=missing))).runs
    assert run.remarks == ["without the picture or the text of 50% of the items, in training (one_modality)"]
