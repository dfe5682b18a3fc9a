"""A trained system beside a Markov chain: shares by a dense reference, the base untouched, the choice, no leak."""

from __future__ import annotations

import json
import logging
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from asking import CPU, ask
from dealt_out import dealt_out, with_items
from pattern import ITEMS, make_run, reads
from stopped_training import stopped_after

from tessera.artifacts.files import read_json
from tessera.artifacts.logs import Terminated
from tessera.artifacts.models import read_tensors
from tessera.artifacts.tables import ArtifactError, read_table, write_item_table
from tessera.data.dataset import load_dataset
from tessera.evaluation.judge import validation_metrics
from tessera.plan.graph import Plan
from tessera.recommenders.evaluate import evaluate_run, load_scorer
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.missing import lost_rows
from tessera.recommenders.systems.base import as_scorer, recommender
from tessera.recommenders.systems.markov_mixture import MarkovMixture
from tessera.recommenders.train import train_run, training_histories, validation_settings
from tessera.recommenders.transition_shares import TransitionShares, similar_items
from tessera.settings.base import ConfigError
from tessera.settings.config import load
from tessera.settings.evaluation import Evaluation
from tessera.settings.missing import Missing
from tessera.settings.runs import Run
from tessera.training.engine import Engine
from tessera.training.machine import seed_step
from tessera.training.phases import Phase

WITHOUT_ROW = (7, 8)
MIXTURE: dict[str, Any] = {"recommender": "markov_mixture"}
SIMILAR = {**MIXTURE, "similar": {"table": "t", "neighbours": 3}}
BY_TABLE = {**SIMILAR, "strengths": [0.0, 4.0]}
ROWS = np.array([[3, 1, 4, 1, 5, 9], [2, 7, 20, 6, 0, 0], [8, 0, 0, 0, 0, 0]])
LENGTHS = np.array([6, 4, 1])


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vectors of all items but two, at random."""
    path = tmp_path_factory.mktemp("similar") / "t.parquet"
    items = np.array([item for item in range(1, ITEMS + 1) if item not in WITHOUT_ROW])
    write_item_table(path, items, np.random.default_rng(3).normal(size=(len(items), 5)).astype(np.float32) + 1)
    return path


def trained(run: Run, data: Path, folder: Path, inputs: RunInputs, validated: Path | None = None) -> Path:
    output = folder / "model.safetensors"
    train_run(run, data, inputs, output, folder / "state", validated=validated)
    return output


def build(run: Run, inputs: RunInputs) -> MarkovMixture:
    """An untrained one."""
    seed_step(run.seed)
    model = recommender(run).build(run, inputs.under(run), np.arange(ITEMS + 1))
    assert isinstance(model, MarkovMixture)
    return model


def curve(output: Path) -> list[float]:
    rows = [json.loads(line) for line in output.with_name("history.jsonl").read_text().splitlines()]
    return [row["NDCG@10"] for row in rows if "epoch" in row]


# ---------------------------------------------------------------- the reference, dense


def dense_counts(data: Path) -> np.ndarray:
    """(items + 1, items + 1) from the prepared rows that train, one user after the other."""
    rows = read_table(data / "interactions.parquet", "interactions").to_pylist()
    counts = np.zeros((ITEMS + 1, ITEMS + 1))
    for user in {row["user"] for row in rows}:
        own = sorted((r for r in rows if r["user"] == user and r["split"] == "train"), key=lambda r: r["position"])
        for before, after in pairwise(own):
            counts[before["item"], after["item"]] += 1
    return counts


def dense_lent(counts: np.ndarray, vectors: np.ndarray, present: np.ndarray, neighbours: int) -> np.ndarray:
    """(items + 1, items + 1) shares of what follows the most similar items."""
    known = np.flatnonzero(present)
    centred = vectors[known] - vectors[known].mean(0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    cosines = centred @ centred.T
    lent = np.zeros_like(counts)
    for row, item in enumerate(known):
        near = [n for n in np.argsort(-cosines[row], kind="stable") if n != row][:neighbours]
        pooled = sum(max(0.0, cosines[row, n]) * counts[known[n]] for n in near)
        lent[item] = pooled / pooled.sum() if pooled.sum() else 0
    return lent


def dense_shares(counts: np.ndarray, lent: np.ndarray, strength: float, smoothing: float) -> np.ndarray:
    """(items + 1, items + 1) P(column | row)."""
    above = counts + strength * lent + smoothing / ITEMS
    return above / (counts.sum(1) + strength * (lent.sum(1) > 0) + smoothing)[:, None]


@pytest.mark.parametrize("strength", [0.0, 4.0])
def test_shares_are_those_of_a_dense_chain(strength: float, data: Path, table: Path) -> None:
    inputs = reads(table)
    vectors, present = inputs.read_table("t", ITEMS)
    histories = training_histories(load_dataset(data))
    chain = TransitionShares(ITEMS, ITEMS, 0.5, borrows=True)
    chain.count(histories.offsets, histories.items, similar_items(vectors, present, 3))
    counts = dense_counts(data)
    assert counts.sum() > 500
    wanted = dense_shares(counts, dense_lent(counts, vectors.numpy(), present.numpy(), 3), strength, 0.5)
    got = chain(torch.arange(ITEMS + 1), strength, ITEMS + 1)
    np.testing.assert_allclose(got[:, 1:], wanted[:, 1:], rtol=1e-5)
    torch.testing.assert_close(got[:, 1:].sum(1), torch.ones(ITEMS + 1))
    if strength:  # nothing is lent to an item that nothing is known of
        own = dense_shares(counts, np.zeros_like(counts), 0.0, 0.5)
        np.testing.assert_allclose(got[list(WITHOUT_ROW), 1:], own[list(WITHOUT_ROW), 1:], rtol=1e-5)
        assert not np.allclose(wanted, own)


def test_rows_that_are_cut_keep_the_most_frequent_and_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """After item 1 come 2 three times, 4 twice, 3 twice and 5 once; of equals the lower number stays."""
    histories = [[1, 2], [1, 2], [1, 2], [1, 4], [1, 4], [1, 3], [1, 3], [1, 5], [2, 1]]
    offsets = np.cumsum([0, *map(len, histories)])
    chain = TransitionShares(5, 2, 1.0, borrows=False)
    with caplog.at_level(logging.INFO):
        chain.count(offsets, np.concatenate(histories), None)
    assert "1 of 5 items are followed by more than 2 others" in caplog.text
    got = chain(torch.tensor([1, 2]), 0.0, 6)[:, 1:]
    # what was cut is in what all sum to still
    wanted = torch.tensor([[0.2, 3.2, 2.2, 0.2, 0.2], [1.2, 0.2, 0.2, 0.2, 0.2]]) / torch.tensor([[9.0], [2.0]])
    torch.testing.assert_close(got, wanted)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        TransitionShares(5, 4, 1.0, borrows=False).count(offsets, np.concatenate(histories), None)
    assert not caplog.text


def test_nobody_followed_anybody() -> None:
    """Histories of one item, as many as there are: the chain says the same of all, and borrows nothing."""
    chain = TransitionShares(4, 4, 1.0, borrows=True)
    near = similar_items(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.ones(5).bool(), 2)
    chain.count(np.arange(4), np.array([1, 2, 3]), near)
    torch.testing.assert_close(chain(torch.tensor([1, 4]), 3.0, 5), torch.full((2, 5), 0.25))
    vectors = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    for ours, theirs in zip(
        similar_items(vectors, torch.ones(9).bool(), 2),
        similar_items(vectors * 2**-60, torch.ones(9).bool(), 2),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)  # whatever the table's scale is
    nothing = similar_items(torch.randn(5, 3), torch.tensor([False, True, False, False, False]), 2)
    assert not nothing.weights.any(), "one item is similar to none"


# ---------------------------------------------------------------- the mixture


def test_scores_are_both_logarithms(data: Path, table: Path, tmp_path: Path) -> None:
    run = make_run(system={**SIMILAR, "weight": 0.3, "strength": 4.0, "smoothing": 0.5}, epochs=1)
    output = trained(run, data, tmp_path, reads(table))
    dataset = load_dataset(data)
    got = ask(load_scorer(output, run, dataset.train_counts, reads(table)), ROWS, LENGTHS)
    base = make_run(epochs=1)
    plain = ask(
        load_scorer(trained(base, data, tmp_path / "base", RunInputs()), base, dataset.train_counts, RunInputs()),
        ROWS,
        LENGTHS,
    )
    vectors, present = reads(table).read_table("t", ITEMS)
    counts = dense_counts(data)
    shares = dense_shares(counts, dense_lent(counts, vectors.numpy(), present.numpy(), 3), 4.0, 0.5)
    last = ROWS[np.arange(3), LENGTHS - 1]
    wanted = plain.log_softmax(1) + 0.3 * torch.from_numpy(np.log(shares[last, 1:])).float()
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize(
    "base",
    [
        {"items": "ids"},
        {"items": {"table": "t", "adapter": [8]}, "samples": "prefixes"},
        {"recommender": "pad", "table": "t", "adapter": [8], "align": {"most_items": 20}},
    ],
    ids=["ids", "prefixes", "pad"],
)
def test_without_weight_it_is_the_base_to_the_bit(
    base: dict[str, Any], data: Path, table: Path, tmp_path: Path
) -> None:
    """Weights, curve and scores, whatever the base is; and training is the same whatever the weight will be."""
    inputs = reads(table if base != {"items": "ids"} else None)
    plain_run = make_run(system=base, epochs=2)
    runs = {weight: make_run(system={**MIXTURE, "base": base, "weight": weight}, epochs=2) for weight in (0.0, 0.5)}
    plain = trained(plain_run, data, tmp_path / "plain", inputs)
    wanted = read_tensors(plain)
    dataset = load_dataset(data)
    scores = ask(load_scorer(plain, plain_run, dataset.train_counts, inputs), ROWS, LENGTHS)
    for weight, run in runs.items():
        output = trained(run, data, tmp_path / str(weight), inputs)
        tensors = read_tensors(output)
        for name, value in wanted.items():
            assert torch.equal(tensors[f"base.{name}"], value), name
        assert curve(output) == curve(plain)
        got = ask(load_scorer(output, run, dataset.train_counts, inputs), ROWS, LENGTHS)
        assert torch.equal(got, scores) == (weight == 0)


def test_weight_and_strength_are_chosen_once_on_validation_and_kept(data: Path, table: Path, tmp_path: Path) -> None:
    system = {**BY_TABLE, "grid": [0.2, 0.8], "base": {"items": {"table": "t", "adapter": [4]}}}
    run = make_run(system=system, epochs=1)
    inputs = reads(table)
    output = trained(run, data, tmp_path, inputs)
    tensors = read_tensors(output)
    tried = tensors["tried"]
    assert tried.shape == (3, 2)
    assert tried[0].tolist() == pytest.approx([max(curve(output))] * 2), "without weight it is the base"
    row, column = np.unravel_index(int(tried.argmax()), (3, 2))
    chosen = {"weight": [0.0, 0.2, 0.8][row], "strength": [0.0, 4.0][column]}
    assert row > 0, "after one epoch a chain knows more"
    assert {name: float(tensors[name]) for name in chosen} == pytest.approx(chosen)
    assert read_json(output.with_suffix(".json"))["selected"] == pytest.approx(chosen)
    # what was tried is what validation says of the pair
    model = build(run, inputs)
    model.load_state_dict(tensors)
    dataset = load_dataset(data)
    cases = dataset.cases("valid")
    for row, column in ((1, 0), (2, 1)):
        model.weight.fill_([0.0, 0.2, 0.8][row])
        model.strength.fill_([0.0, 4.0][column])
        judged = validation_metrics(
            as_scorer(model, CPU), cases, validation_settings(run, len(dataset.train_counts) - 1)
        )
        assert float(tried[row, column]) == pytest.approx(judged["NDCG@10"])
    # a run that cannot be validated takes what the one that was had chosen
    description = output.with_suffix(".json")
    said = {"weight": 0.8, "strength": 4.0}
    description.write_text(json.dumps({**read_json(description), "selected": said}))
    final = trained(run, data, tmp_path / "final", inputs, validated=description)
    assert {name: float(read_tensors(final)[name]) for name in said} == pytest.approx(said)
    assert read_json(final.with_suffix(".json"))["selected"] == said


def test_what_the_base_chose_is_kept_beside_it(data: Path, table: Path, tmp_path: Path) -> None:
    base = {"recommender": "cider", "items": {"table": "t", "adapter": [4]}, "counterfactual": {"grid": [0.5]}}
    run = make_run(system={**MIXTURE, "base": base, "grid": [0.3]}, epochs=1)
    output = trained(run, data, tmp_path, reads(table))
    tensors = read_tensors(output)
    chosen = {"tau": float(tensors["base.tau"]), "weight": float(tensors["weight"])}
    assert read_json(output.with_suffix(".json"))["selected"] == pytest.approx(chosen)
    description = output.with_suffix(".json")
    description.write_text(json.dumps({**read_json(description), "selected": {"tau": 0.5, "weight": 0.3}}))
    final = read_tensors(trained(run, data, tmp_path / "final", reads(table), validated=description))
    assert [float(final["base.tau"]), float(final["weight"])] == pytest.approx([0.5, 0.3])


def test_items_are_similar_by_what_was_learned(data: Path, tmp_path: Path) -> None:
    """Without a table: by the vectors that the base has when its training is over."""
    run = make_run(system={**MIXTURE, "similar": {"neighbours": 2}, "weight": 0.2, "strength": 3.0}, epochs=2)
    tensors = read_tensors(trained(run, data, tmp_path, RunInputs()))
    counts = dense_counts(data)
    vectors = tensors["base.items.weight"].numpy().astype(np.float64)
    lent = dense_lent(counts, vectors, np.arange(ITEMS + 1) > 0, 2)
    got = np.zeros_like(lent)
    np.add.at(got, (np.arange(ITEMS + 1)[:, None], tensors["chain.near"].numpy()), tensors["chain.shares"].numpy())
    np.testing.assert_allclose(got, lent, atol=1e-5)
    assert (lent.sum(1) > 0).sum() == ITEMS


def lending(model_file: Path) -> np.ndarray:
    """Items that borrow from some other by what was saved."""
    tensors = read_tensors(model_file)
    return np.flatnonzero((tensors["chain.shares"].numpy() > 0).any(1))


NEVER_MET = 5


def never_met(data: Path, folder: Path) -> Path:
    """The dataset, in which one item is in no training history."""
    return with_items(data, folder, lambda items, held: np.where((items == NEVER_MET) & ~held, 6, items))


BY_ROW = {"table": "t", "adapter": [4]}
BASES: dict[str, tuple[dict[str, Any], set[int]]] = {
    "ids": ({"items": "ids"}, {NEVER_MET}),
    "table": ({"items": BY_ROW}, set(WITHOUT_ROW)),
    "table_and_ids": ({"items": {**BY_ROW, "id_residual": True}}, set()),
    "pad": ({"recommender": "pad", "table": "t", "adapter": [4]}, set()),
    "findrec": ({"recommender": "findrec", "text": "t", "width": 8, "alignment": {"most_items": 20}}, set()),
    "i3_mrec": ({"recommender": "i3_mrec", "text": "t", "ids": "none", "adapter": [4]}, set(WITHOUT_ROW)),
    "i3_mrec_ids": ({"recommender": "i3_mrec", "text": "t", "ids": "environment", "adapter": [4]}, set()),
    "cider": ({"recommender": "cider", "items": BY_ROW, "damage": {"pattern": "feature"}}, set(WITHOUT_ROW)),
}


@pytest.mark.parametrize("name", BASES)
def test_items_that_no_vector_describes_borrow_nothing(name: str, data: Path, table: Path, tmp_path: Path) -> None:
    """By the base's own vectors as by a table: what has no row and no vector that was trained."""
    base, unknown = BASES[name]
    system = {**MIXTURE, "base": base, "similar": {"neighbours": 3}, "weight": 0.2, "strength": 3.0}
    inputs = reads() if name == "ids" else reads(table)
    output = trained(make_run(system=system, epochs=1), never_met(data, tmp_path / "data"), tmp_path, inputs)
    assert set(lending(output)) == set(range(1, ITEMS + 1)) - unknown


@pytest.mark.parametrize("when", ["test", "training", "both"])
def test_what_is_lost_in_training_borrows_nothing(when: str, data: Path, table: Path, tmp_path: Path) -> None:
    missing = Missing.model_validate({"text": 0.5, "when": when})
    system = {**MIXTURE, "base": {"items": BY_ROW}, "similar": {"neighbours": 3}, "weight": 0.2, "strength": 3.0}
    run = make_run(system=system, epochs=1).model_copy(update={"missing": missing, "modalities": {"t": ["text"]}})
    expected = set(range(1, ITEMS + 1)) - set(WITHOUT_ROW)
    if when != "test":
        gone = lost_rows(missing, ["text"], ITEMS)
        assert gone is not None
        expected -= set(gone.rows.numpy().nonzero()[0].tolist())
    assert set(lending(trained(run, data, tmp_path, reads(table)))) == expected


# ---------------------------------------------------------------- training as a whole


def test_nothing_that_is_held_out_is_counted(data: Path, table: Path, tmp_path: Path) -> None:
    """Items of validation and test dealt out anew change no count, and those that train are all there."""
    other = with_items(data, tmp_path / "other", dealt_out)
    run = make_run(system={**SIMILAR, "weight": 0.3, "strength": 2.0}, epochs=1, patience=9)
    one, two = (
        read_tensors(trained(run, folder, tmp_path / name, reads(table)))
        for name, folder in (("one", data), ("two", other))
    )
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.equal(two[name], value), name
    np.testing.assert_allclose(one["chain.totals"], dense_counts(data).sum(1))


@pytest.mark.parametrize("after", [1, 9])
def test_a_stop_changes_nothing(after: int, data: Path, table: Path, tmp_path: Path) -> None:
    system = {**BY_TABLE, "grid": [0.2], "base": {"items": {"table": "t", "adapter": [4]}}}
    run = make_run(system=system, epochs=2, batch_tokens=250, checkpoint_seconds=0.0)
    expected = trained(run, data, tmp_path / "whole", reads(table))
    with stopped_after(after):
        trained(run, data, tmp_path / "stopped", reads(table))
    again = trained(run, data, tmp_path / "stopped", reads(table))
    assert again.read_bytes() == expected.read_bytes()


def test_a_stop_after_the_choice_changes_nothing(
    data: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was counted and chosen is in the checkpoint: a resume neither counts nor chooses again."""
    run = make_run(system={**BY_TABLE, "grid": [0.2]}, epochs=1, checkpoint_seconds=0.0)
    expected = trained(run, data, tmp_path / "whole", reads(table)).read_bytes()
    begin, calls = Engine._begin, []

    def stopping(self: Engine, phase: Phase) -> None:
        begin(self, phase)
        calls.append(phase.name)
        if phase.name == "chain" and len(calls) == 2:
            raise Terminated

    monkeypatch.setattr(Engine, "_begin", stopping)
    with pytest.raises(Terminated):
        trained(run, data, tmp_path / "stopped", reads(table))
    assert trained(run, data, tmp_path / "stopped", reads(table)).read_bytes() == expected
    assert calls == ["epochs", "chain"]


def test_a_lost_row_lends_nothing(data: Path, table: Path) -> None:
    """Items whose text is lost in training are similar to none; one that is lost at the test alone still is."""
    run = make_run(system={**SIMILAR, "weight": 0.3, "strength": 2.0})
    for when, known in (("both", 0), ("test", ITEMS - len(WITHOUT_ROW))):
        lost = run.model_copy(update={"missing": Missing(text=1.0, when=when), "modalities": {"t": ["text"]}})
        model = build(lost, reads(table))
        assert model.similar is not None
        assert int(model.similar[1].sum()) == known


def test_a_chain_knows_a_pattern_that_the_base_has_not_learned(data: Path, tmp_path: Path) -> None:
    """Each item is mostly followed by the next: judged from disk, as the workflow does."""
    hits = {}
    for name, system in (("base", {"items": "ids"}), ("mixture", MIXTURE)):
        run = make_run(system=system, epochs=1, learning_rate=1.0e-6)
        output = trained(run, data, tmp_path / name, RunInputs())
        files = tmp_path / name / "e", tmp_path / name / "m.json"
        judged = evaluate_run(run, Evaluation(), output, data, RunInputs(), None, *files)
        hits[name] = judged["metrics"]["Hit@5"]
    assert hits["mixture"] > hits["base"] + 0.1


# ---------------------------------------------------------------- the chain alone


def test_a_markov_chain_is_smoothed_by_similar_items(data: Path, table: Path, tmp_path: Path) -> None:
    system = {"recommender": "markov", "smoothing": 2.0, "similar": {"table": "t", "neighbours": 3}, "strength": 4.0}
    run = make_run(system=system)
    assert run.heuristic
    assert run.tables == ["t"]
    output = trained(run, data, tmp_path, reads(table))
    dataset = load_dataset(data)
    got = ask(load_scorer(output, run, dataset.train_counts, RunInputs()), ROWS, LENGTHS)
    vectors, present = reads(table).read_table("t", ITEMS)
    counts = dense_counts(data)
    lent = dense_lent(counts, vectors.numpy(), present.numpy(), 3)
    prior = dataset.train_counts / dataset.train_counts.sum()
    above = counts + 4 * lent + 2 * prior
    wanted = above / (counts.sum(1) + 4 * (lent.sum(1) > 0) + 2)[:, None]
    np.testing.assert_allclose(got, wanted[ROWS[np.arange(3), LENGTHS - 1], 1:], rtol=1e-5)
    torch.testing.assert_close(got.sum(1), torch.ones(3))


def test_a_chain_keeps_the_largest_shares(data: Path, table: Path, tmp_path: Path) -> None:
    system = {"recommender": "markov", "similar": {"table": "t", "neighbours": 3}}
    whole, cut = (
        read_tensors(trained(make_run(system={**system, "kept": kept}), data, tmp_path / str(kept), reads(table)))
        for kept in (ITEMS, 2)
    )
    sizes = np.diff(cut["near_offsets"].numpy())
    assert sizes.max() == 2
    largest = np.zeros(ITEMS + 1)
    for item in range(ITEMS + 1):
        first, end = whole["near_offsets"][item : item + 2].tolist()
        largest[item] = np.sort(whole["near_counts"].numpy()[first:end])[-2:].sum()
    rows = np.repeat(np.arange(ITEMS + 1), sizes)
    np.testing.assert_allclose(np.bincount(rows, cut["near_counts"].numpy(), ITEMS + 1), largest, rtol=1e-6)


def test_a_chain_that_reads_a_table_goes_without_what_is_lost(data: Path, table: Path, tmp_path: Path) -> None:
    """As a trained system does, and says so; one that reads none stays as it is."""
    chains = {"plain": {"recommender": "markov"}, "s": {"recommender": "markov", "similar": {"table": "t"}}}
    config = {
        "datasets": {"x": {"source": "bazaar"}}, "systems": chains, "missing": {"text": 1.0},
        "tables": {"t": {"recipe": "vectors", "path": "t.npy", "made_from": ["text"]}},
        "experiment": {"datasets": ["x"], "systems": [*chains]},
    }  # fmt: skip
    plain, similar = Plan(load(config)).runs
    assert (plain.missing, plain.tables, plain.remarks) == (None, [], [])
    assert similar.missing is not None
    assert similar.remarks == [similar.missing.remark]
    one, other = (trained(run, data, tmp_path / run.system, reads(table)) for run in (plain, similar))
    made = read_tensors(other)
    assert not len(made["near_items"]), "all is lost, nothing is lent"
    assert torch.equal(made["counts"], read_tensors(one)["counts"])


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"weight": -1.0}, "systems.s.weight"),
        ({"smoothing": 0.0}, "systems.s.smoothing"),
        ({"kept": 0}, "systems.s.kept"),
        ({"grid": [-0.1]}, "systems.s.grid: none is below 0 (got -0.1)"),
        ({"strength": 1.0}, "systems.s.strength: is read with `similar` alone"),
        (
            {"weight": 0.2, "grid": [0.1, 0.5]},
            "systems.s.grid: is what the weight is chosen from, and `weight` is given",
        ),
        ({"similar": {}, "strength": 2.0, "strengths": [1.0]}, "systems.s.strengths: is what the strength is chosen"),
        ({"backbones": []}, "systems.s.backbones"),
        ({"backbones": ["sasrec", "sasrec"]}, "systems.s.backbones: names something twice"),
        ({"similar": {"table": "tt"}}, "systems.s.similar.table: unknown name 'tt'; did you mean 't'?"),
        ({"base": {"items": {"table": "tt"}}}, "systems.s.base.items.table: unknown name 'tt'; did you mean 't'?"),
        (
            {"base": {"recommender": "markov_mixture"}},
            "s.base: 'markov_mixture' is no trained system with a backbone",
        ),
        ({"base": {"recommender": "tiger", "semantic_ids": "c"}}, "'tiger' is no trained system with a backbone"),
        ({"base": {"recommender": "markov"}}, "'markov' is no trained system with a backbone"),
        ({"base": {"recommender": "padd"}}, "unknown recommender 'padd'; did you mean 'pad'?"),
        ({"base": {"items": "ids", "training": {"epochs": 3}}}, "training: is said of the whole system, beside `base`"),
        ({"base": {"items": "ids", "backbones": ["gru4rec"]}}, "base.backbones: is said of the whole system"),
        ({"base": {"recommender": "cider", "items": "ids"}}, "systems.s.base.items: 'ids' reads no table"),
        ({"recommender": "markov", "similar": {}}, "systems.s.similar.table: is needed"),
        ({"recommender": "markov", "strength": 1.0}, "systems.s.strength: is read with `similar` alone"),
        ({"recommender": "markov", "kept": 9}, "systems.s.kept: is read with `similar` alone"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        make_run(system={**MIXTURE, **settings})
    assert said in str(error.value)


def test_the_base_is_under_the_backbones_of_the_whole() -> None:
    """What cannot read under one of them is told; one that the system itself leaves out is no problem."""
    base = {"recommender": "cider", "items": {"table": "t"}}
    run = make_run("bert4rec", {**MIXTURE, "base": base, "backbones": ["gru4rec"]})
    assert run.recommender == "gru4rec"
    assert Run.model_validate_json(run.model_dump_json()) == run
    with pytest.raises(ConfigError, match=r"systems\.s\.base\.backbones: 'bert4rec' looks both ways"):
        make_run("gru4rec", {**MIXTURE, "base": base, "backbones": ["bert4rec"]})


def test_what_the_base_is_said_to_be_is_told() -> None:
    run = make_run(system={**MIXTURE, "base": {"recommender": "cider", "items": {"table": "t"}}})
    assert any("CIDer-style" in remark for remark in run.remarks)
    official = {"recommender": "pad", "table": "t", "preset": "official"}
    run, alone = make_run(system={**MIXTURE, "base": official}), make_run(system=official)
    assert "its base runs under preset official" in run.remarks
    assert run.loss == alone.loss != make_run().loss, "its loss too"


def test_a_table_without_rows_is_refused_before_training(data: Path, tmp_path: Path) -> None:
    write_item_table(tmp_path / "t.parquet", np.zeros(0, np.int64), np.zeros((0, 3), np.float32))
    with pytest.raises(ArtifactError, match=r"t\.parquet: has no vector of any item"):
        trained(make_run(system=BY_TABLE), data, tmp_path, reads(tmp_path / "t.parquet"))
    assert not (tmp_path / "state").exists()
