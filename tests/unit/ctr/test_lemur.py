"""LEMUR: what is encoded, written and read when; gradients; what training leaves behind; kills; bad input."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from ctr_logs import make_run, random_rows, samples_settings, write_log
from ctr_world import ENCODED, ITEMS, READER, make_batch, make_catalogue, settings, write_content
from pydantic import ValidationError
from torch import Tensor

from tessera.artifacts.models import read_tensors
from tessera.artifacts.tables import ArtifactError
from tessera.ctr.batch import Batch
from tessera.ctr.data import load_samples
from tessera.ctr.evaluate import evaluate_model
from tessera.ctr.models.lemur import last_events
from tessera.ctr.samples import make_samples
from tessera.ctr.task import build
from tessera.ctr.train import train_model
from tessera.settings.ctr import CTREvaluation
from tessera.training.engine import Engine
from tessera.training.losses import Losses

torch.set_num_threads(1)
LENGTHS = [30, 0, 3, 60, 12, 7]


def make(**keys: Any) -> Any:
    torch.manual_seed(0)
    return build(settings(model="lemur", **{**ENCODED, **keys}), make_catalogue()).train()


def loss_of(losses: Losses) -> Tensor:
    total = sum(term.value for term in losses.values() if term.trained)
    assert isinstance(total, Tensor)
    return total


def gradients(model: Any, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def levelled(vectors: Tensor, over: Tensor) -> Tensor:
    """Vectors (n, width) measured by the mean and variance of the columns of others, written out."""
    return (vectors - over.mean(0)) / (over.var(0, unbiased=False) + 1e-5).sqrt()


@pytest.mark.parametrize("regime", ["bank", "end_to_end", "frozen"])
def test_counts_are_of_whole_histories_and_all_else_is_of_those_that_are_read(regime: str) -> None:
    """What lies before the events that are read is neither encoded nor looked up: it changes the counted part alone."""
    keys = {"regime": regime, "long": 20, "recent": 4, "short": 5}
    plain, counting, batch = make(**keys), make(counts=True, **keys), make_batch(LENGTHS)
    counting.load_state_dict(plain.state_dict(), strict=False)
    for parameter in counting.counts.parameters():
        parameter.data.zero_()
    torch.manual_seed(1)
    expected = plain.losses(batch.latest(20))
    torch.manual_seed(1)
    found = counting.losses(batch)
    assert found.keys() == expected.keys()
    assert all(torch.equal(torch.as_tensor(found[name].value), torch.as_tensor(term.value))
               for name, term in expected.items())  # fmt: skip
    counting.eval()
    part = counting.counts(batch)
    assert torch.equal(counting(batch), counting.logits(batch.latest(20)) + part)


def test_the_latest_events_of_a_batch() -> None:
    batch = make_batch(LENGTHS)
    cut = batch.latest(10)
    for row, length in enumerate(LENGTHS):
        kept = min(length, 10)
        for part in ("histories", "ages"):
            whole, last = getattr(batch, part)[row], getattr(cut, part)[row]
            assert last[:kept].tolist() == whole[length - kept : length].tolist()
            assert not last[kept:].any()
        assert int(cut.lengths[row]) == kept
    assert batch.latest(60) is batch


# ---------------------------------------------------------------- bank


def test_a_step_writes_what_it_encodes_before_it_reads() -> None:
    """The history of a row holds the target of another: it is read as written in the same step, without gradient."""
    model, batch = make(), make_batch(LENGTHS)
    batch = replace(batch, histories=batch.histories.where(batch.histories != 9, 10), items=batch.items.clone())
    batch.items[0], batch.histories[3, 5] = 9, 9
    content = model.content(batch, batch.histories)
    own = levelled(model.documents.encode(torch.tensor([9]))[0], model.documents.encode(torch.unique(batch.items)))
    read = content.table[content.at[3, 5]]
    torch.testing.assert_close(read, own, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(content.targets[0], own, atol=1e-6, rtol=1e-5)
    written = (model.bank.written >= 0).nonzero().squeeze(1)
    assert written.tolist() == sorted(set(batch.items.tolist()))
    (gradient,) = torch.autograd.grad(read.sum(), model.documents.out.weight, allow_unused=True)
    assert gradient is None or not gradient.any()
    assert torch.autograd.grad(content.targets[0].sum(), model.documents.out.weight)[0].any()


def test_what_the_bank_lacks_is_one_learned_vector() -> None:
    model, batch = make(), make_batch(LENGTHS)
    content = model.content(batch, batch.histories)
    for row, length in enumerate(LENGTHS):
        for item, at in zip(batch.histories[row, :length].tolist(), content.at[row].tolist(), strict=False):
            assert bool(content.table_known[at]) == (item in batch.items)
            if item not in batch.items:
                assert torch.equal(content.table[at], model.absent)


def test_what_the_bank_lacks_in_the_end_is_written_and_nothing_else() -> None:
    """Nothing that judging reads of a target has learned nothing: neither the vector of what is absent nor its mark."""
    model, batch = make(), make_batch(LENGTHS)
    model.content(batch, batch.histories)
    written = model.bank.written >= 0
    before = model.bank.vectors.clone()
    assert 0 < int(written.sum()) < ITEMS
    model.finish()
    assert bool((model.bank.written[1:] >= 0).all())
    assert torch.equal(model.bank.vectors[written], before[written])
    lacked = (~written).nonzero().squeeze(1)[1:]
    fresh = model.eval().documents(lacked).detach()
    torch.testing.assert_close(model.bank.vectors[lacked].float(), fresh, atol=1e-5, rtol=1e-4)
    assert bool(model.content(batch, batch.histories).known.all())


def test_only_a_share_is_encoded_and_only_a_share_learns() -> None:
    # what is standardised has a gradient through the means of those that learn, too
    model, batch = make(forwarded=0.5, learned=0.25, standardized=False), make_batch([5] * 40)
    first = set(batch.items.tolist())
    content = model.content(batch, batch.histories)
    written = set((model.bank.written >= 0).nonzero().squeeze(1).tolist())
    assert len(written) == round(0.5 * len(first))
    assert set(batch.items[content.known].tolist()) == written
    learning = set()
    for row in range(len(batch)):
        gradient = torch.autograd.grad(content.targets[row].sum(), model.documents.out.weight, retain_graph=True,
                                       allow_unused=True)[0]  # fmt: skip
        if gradient is not None and gradient.any():
            learning.add(int(batch.items[row]))
    assert len(learning) == round(0.25 * len(first))
    assert learning < written
    # who is not encoded in the next step is read as it was written in this one
    before = model.bank.vectors.clone()
    again = model.content(batch, batch.histories)
    fresh = {item for item in first if int(model.bank.written[item]) == 2}
    for row, item in enumerate(batch.items.tolist()):
        if item not in fresh and item in written:
            assert torch.equal(again.targets[row], before[item])


def test_old_and_wanted_vectors_are_drawn_more_often() -> None:
    model = make(forwarded=0.2, learned=0.2, refresh="age")
    model.bank.write(torch.arange(1, ITEMS + 1), torch.zeros(ITEMS, 8), 0)
    model.bank.write(torch.arange(1, 31), torch.zeros(30, 8), 99)
    model.clock.fill_(100)
    counts = {True: 0, False: 0}
    batch = replace(make_batch([3] * ITEMS), items=torch.arange(1, ITEMS + 1))
    for seed in range(20):
        torch.manual_seed(seed)
        items, _ = model._refresh(batch)
        counts[True] += int((items > 30).sum())
        counts[False] += int((items <= 30).sum())
        model.bank.written[1:31], model.bank.written[31:] = 99, 0
        model.clock.fill_(100)
    assert counts[True] > 20 * counts[False]


def test_the_curve_says_how_stale_the_bank_is() -> None:
    model, batch = make(), make_batch(LENGTHS)
    names = {"tokens", "bank_coverage", "item_cosine"}
    assert {name for name, term in model.losses(batch).items() if not term.trained} == names
    second = model.losses(batch)
    assert float(second["bank_cosine"].value) == pytest.approx(1, abs=1e-5)  # nothing was learned in between
    assert float(second["bank_age"].value) == 1
    with torch.no_grad():
        model.documents.out.weight.add_(torch.randn(8, 8))
    assert float(model.losses(batch)["bank_cosine"].value) < 0.999


# ---------------------------------------------------------------- gradients


def by_each_event(model: Any, batch: Batch) -> Tensor:
    """The loss where every target, event and query is encoded for itself, nothing twice used."""
    histories = batch.histories
    content = model.content(batch, histories)
    rows = torch.arange(histories.numel()).view_as(histories)
    anchors, shown = last_events(histories, batch.lengths), torch.cat([batch.items, histories.flatten()])

    def vectors(encoder: Any, items: Tensor, among: Tensor) -> Tensor:
        encoded = encoder.encode(items)
        return levelled(encoded, encoder.encode(torch.unique(among))) if encoder.level is not None else encoded

    among = shown[shown > 0]
    table = vectors(model.documents, histories.flatten(), among) * (histories.flatten() > 0)[:, None]
    alone = replace(
        content,
        targets=vectors(model.documents, batch.items, among),
        queries=vectors(model.queries, anchors, anchors),
        table=table,
        table_known=histories.flatten() > 0,
        at=rows,
    )
    logits = model._logits(batch, histories, alone)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, batch.labels)
    return loss + model._query_loss(batch, alone)


@pytest.mark.parametrize(("recompute", "standardized"), [(False, False), (True, False), (True, True)])
def test_end_to_end_is_the_plain_gradient(recompute: bool, standardized: bool) -> None:
    """Each item encoded once, in small batches that are made again, against every event encoded for itself."""
    reader = {**ENCODED["documents"], "batch_tokens": 60, "recompute": recompute}  # type: ignore[dict-item]
    keys = {"regime": "end_to_end", "documents": reader, "standardized": standardized}
    model, batch = make(**keys), make_batch(LENGTHS)
    loss, plain = loss_of(model.losses(batch)), by_each_event(model, batch)
    torch.testing.assert_close(loss, plain, atol=1e-6, rtol=1e-5)
    found, expected = gradients(model, loss), gradients(model, plain)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=2e-6, rtol=1e-4, msg=name)
    assert found["documents.patches.weight"].abs().max() > 1e-5


def test_the_click_reaches_the_encoders_unless_it_may_not() -> None:
    for keys, reaches in (({}, True), ({"ranker_gradient": False}, False), ({"regime": "end_to_end"}, True)):
        model, batch = make(**keys), make_batch(LENGTHS)
        found = gradients(model, model.losses(batch)["cross-entropy"].value)
        inside = [name for name in found if name.startswith(("documents", "queries")) and found[name].any()]
        assert bool(inside) == reaches, keys


def test_events_carry_a_gradient_end_to_end_alone() -> None:
    for regime, reaches in (("bank", False), ("end_to_end", True)):
        model, batch = make(regime=regime), make_batch(LENGTHS)
        model.losses(batch)  # the bank holds something
        content = model.content(batch, batch.histories)
        assert content.table.requires_grad
        rows = content.at[3][~torch.isin(batch.histories[3], batch.items)]
        gradient = torch.autograd.grad(content.table[rows].sum(), model.documents.out.weight, allow_unused=True)[0]
        assert (gradient is not None and bool(gradient.any())) == reaches


def test_content_and_ids_are_brought_together() -> None:
    model, batch = make(content_id=0.5), make_batch(LENGTHS)
    losses = model.losses(batch)
    found = gradients(model, losses["content_id"].value)
    assert found["items.ids.weight"].any()
    assert found["documents.out.weight"].any()


def test_items_that_the_bank_lacks_have_no_part_in_it() -> None:
    """They all have the one vector of what is absent, which no id can be told from."""
    model, batch = make(content_id=0.5, forwarded=0.5, learned=0.5), make_batch(LENGTHS)
    content = model.content(batch, batch.histories)
    known = content.known & (batch.items != batch.items[0])
    known[0] = False
    assert 2 <= len(set(batch.items[known].tolist())) < len(set(batch.items.tolist()))
    content = replace(content, known=known)
    loss = model._id_loss(batch, content, model.beside)
    distinct, first = np.unique(batch.items[known].numpy(), return_index=True)
    vectors = torch.nn.functional.normalize(content.targets[known][first], dim=1)
    ids = torch.nn.functional.normalize(model.beside(model.items(torch.from_numpy(distinct))), dim=1)
    logits, own = vectors @ ids.T / 0.1, torch.arange(len(distinct))
    both = (torch.nn.functional.cross_entropy(sides, own) for sides in (logits, logits.T))
    torch.testing.assert_close(loss, 0.5 * sum(both) / 2)
    assert not gradients(model, loss)["absent"].any()
    for few in (0, 1):
        some = known & (batch.items == batch.items[known][0]) & bool(few)
        assert model._id_loss(batch, replace(content, known=some), model.beside) == 0


def mean_cosine(model: Any) -> float:
    """Of the vectors of different items, as judging would read them."""
    with torch.no_grad():
        vectors = torch.nn.functional.normalize(model.eval().documents(torch.arange(1, ITEMS + 1)), dim=1)
    model.train()
    alike = vectors @ vectors.T
    return float((alike.sum() - ITEMS) / (ITEMS * (ITEMS - 1)))


@pytest.mark.parametrize(("regime", "pooling"), [("bank", "start"), ("end_to_end", "mean"), ("frozen", "mean")])
def test_items_do_not_become_one(regime: str, pooling: str) -> None:
    """Clicks and queries that say nothing of items: what tells items apart is noise, and an encoder drops it if it can.

    Six settings of regime and pooling were looked at: 0.23 or less standardised, 0.999 or more without.
    """
    reader = {**READER, "pooling": pooling}
    alike = {}
    for standardized in (True, False):
        model = make(regime=regime, standardized=standardized, documents=reader, queries=reader)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for step in range(60):
            batch = make_batch([8] * 24, seed=step)
            optimizer.zero_grad()
            loss_of(model.alone(batch) if regime == "frozen" else model.losses(batch)).backward()
            optimizer.step()
        alike[standardized] = mean_cosine(model)
    assert alike[True] < 0.5, alike
    assert alike[False] > 0.9, alike


@pytest.mark.parametrize("regime", ["bank", "end_to_end"])
def test_a_snapshot_is_measured_by_the_items_that_training_met(regime: str) -> None:
    """Not by running statistics, which lag behind an encoder that learns; the catalogue's other items do not count."""
    model = make(regime=regime)
    met = make_catalogue().known.nonzero().squeeze(1)
    met = met[met > 0]
    assert 2 < len(met) < ITEMS
    model.losses(make_batch(LENGTHS))
    with torch.no_grad():
        model.documents.out.bias.add_(3.0)
        model.queries.out.weight.mul_(2.0)
    model.finish()
    model.eval()
    every = torch.arange(ITEMS + 1)
    for encoder, read in ((model.documents, model.documents(every)), (model.queries, model.query_vectors.rows)):
        encoded = encoder.encode(every)
        torch.testing.assert_close(read, levelled(encoded, encoded[met]), atol=1e-5, rtol=1e-4)
    if regime == "end_to_end":
        torch.testing.assert_close(model.bank.vectors[1:], model.documents(every[1:]), atol=1e-5, rtol=1e-4)


# ---------------------------------------------------------------- training


def write_world(folder: Path, rows: Any, items: int = 30) -> Path:
    data = write_log(folder / "data", rows, items, {item: "ab"[item % 2] for item in range(1, items + 1)})
    make_samples(samples_settings(split={"past": 0.1, "valid": 0.15, "test": 0.15}), data, folder / "samples")
    return folder / "samples"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("encoded")
    return write_world(folder, random_rows(users=20, length=40, ties=False)), write_content(folder / "shop", 30)


def run_of(**keys: Any) -> Any:
    training = keys.pop("training", {"epochs": 1})
    return make_run(model="lemur", training=training, **{**ENCODED, "long": 20, "recent": 4, **keys})


def train(run: Any, world: tuple[Path, Path], folder: Path) -> Path:
    samples, content = world
    train_model(run, samples, None, folder / "model.safetensors", folder / "state", content=content)
    return folder / "model.safetensors"


def judge(run: Any, world: tuple[Path, Path], folder: Path) -> dict[str, Any]:
    samples, content = world
    asked = CTREvaluation.model_validate({"resamples": 100, "requests": 2, "candidates": 5})
    outputs = folder / "predictions.parquet", folder / "metrics.json"
    return evaluate_model(run, asked, folder / "model.safetensors", samples, None, *outputs, content=content)


REGIMES: dict[str, dict[str, Any]] = {
    "bank": {},
    "refreshed": {"snapshot": "refreshed", "forwarded": 0.5, "learned": 0.5},
    "end_to_end": {"regime": "end_to_end"},
    "frozen": {"regime": "frozen"},
    "begun": {"pretraining": 1},
}


@pytest.mark.parametrize("name", REGIMES)
def test_a_regime_from_samples_to_metrics(name: str, world: tuple[Path, Path], tmp_path: Path) -> None:
    run = run_of(**REGIMES[name])
    tensors = read_tensors(train(run, world, tmp_path))
    curve = [json.loads(line) for line in (tmp_path / "history.jsonl").open()]
    phases = {"frozen": ["contrastive", "ranker"], "begun": ["contrastive", "joint"]}.get(name, [None])
    assert list(dict.fromkeys(row.get("phase") for row in curve)) == phases
    assert judge(run, world, tmp_path)["metrics"]["AUC"] > 0
    written = tensors["bank.written"][1:] >= 0
    described = json.loads((tmp_path / "model.json").read_text())
    ends = [[row for row in curve if row.get("phase") == phase][-1] for phase in phases]
    assert described["steps"] == sum(row["step"] for row in ends)
    assert described["seconds"] == pytest.approx(sum(row["seconds"] for row in ends))
    samples = load_samples(world[0])
    shown = np.unique(samples.targets[samples.of("train")])
    assert int(written.sum()) == 30
    about = json.loads((tmp_path / "model.json").read_text())
    assert about["encoder_parameters"] > 0
    if name == "bank":
        assert about["bank"]["coverage"] == len(shown) / 30
        assert -1 <= about["bank"]["cosine"]["least"] <= about["bank"]["cosine"]["mean"] <= 1.0001
    # the snapshot is what the trained encoder says, but of a bank what training wrote
    torch.manual_seed(0)
    from tessera.ctr.data import load_catalogue

    model: Any = build(run.model, load_catalogue(world[0], None, world[1]))
    model.load_state_dict(tensors)
    fresh = model.eval().documents(torch.arange(1, 31)).detach()
    if name == "bank":
        assert not torch.allclose(tensors["bank.vectors"][1:], fresh, atol=1e-5, rtol=1e-4)
    elif name != "begun":
        torch.testing.assert_close(tensors["bank.vectors"][1:], fresh, atol=1e-5, rtol=1e-4)


def test_a_frozen_encoder_stays_as_the_first_phase_left_it(world: tuple[Path, Path], tmp_path: Path) -> None:
    """Whatever the ranker's phase does: twice as fast a ranker, the same encoder and the same bank, to the bit."""
    models = {}
    for rate in (0.01, 0.02):
        run = run_of(regime="frozen", training={"epochs": 1, "learning_rate": rate})
        models[rate] = read_tensors(train(run, world, tmp_path / str(rate)))
    for name, tensor in models[0.01].items():
        if name.startswith(("documents", "queries", "bank", "query_vectors")):
            assert torch.equal(tensor, models[0.02][name]), name
    assert not torch.equal(models[0.01]["asks.weight"], models[0.02]["asks.weight"])


def test_each_optimiser_moves_its_own(world: tuple[Path, Path], tmp_path: Path) -> None:
    """An encoder that hardly learns stays where it began, while the ranker moves."""
    run = run_of(encoder={"learning_rate": 1e-12})
    tensors = read_tensors(train(run, world, tmp_path / "slow"))
    other = read_tensors(train(run_of(encoder={"learning_rate": 1e-2}), world, tmp_path / "fast"))
    moved = (tensors["documents.out.weight"] - other["documents.out.weight"]).abs().max()
    assert moved > 1e-3
    again = read_tensors(train(run_of(encoder={"learning_rate": 2e-12}), world, tmp_path / "again"))
    torch.testing.assert_close(tensors["documents.out.weight"], again["documents.out.weight"], atol=1e-9, rtol=0)


def test_nothing_held_out_reaches_weights_or_bank(world: tuple[Path, Path], tmp_path: Path) -> None:
    rows = random_rows(users=20, length=40, ties=False)
    samples = load_samples(world[0])
    cut = samples.moments[samples.of("valid")].min()
    shuffled = iter(np.random.default_rng(3).permutation([row[1] for row in rows if row[2] >= cut]).tolist())
    other = write_world(tmp_path / "other", [(u, next(shuffled) if t >= cut else i, t, r) for u, i, t, r in rows])
    assert (other / "items.npy").read_bytes() != (world[0] / "items.npy").read_bytes()
    for name in ("bank", "end_to_end", "frozen"):
        run = run_of(**REGIMES[name])
        before, after = (
            train(run, (where, world[1]), tmp_path / f"{name}{number}")
            for number, where in enumerate((world[0], other))
        )
        assert before.read_bytes() == after.read_bytes(), name


def test_judging_writes_nothing_into_the_bank(world: tuple[Path, Path], tmp_path: Path) -> None:
    model, batch = make(), make_batch(LENGTHS)
    model.losses(batch)
    model.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model(make_batch(LENGTHS, seed=4))
    model.request(batch.histories[0], batch.ages[0], batch.items)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", ["bank", "refreshed", "frozen"])
def test_mapped_vectors_are_the_same(
    name: str, world: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights, bank and metrics, also where a table is gone through in several pieces; no file is left behind."""
    plain, mapped = (run_of(**REGIMES[name], mapped=mapped) for mapped in (False, True))
    kept = train(plain, world, tmp_path / "plain").read_bytes()
    assert train(mapped, world, tmp_path / "mapped").read_bytes() == kept
    assert not list((tmp_path / "mapped").rglob("mapped-*"))
    for run, folder in ((plain, "plain"), (mapped, "mapped")):
        judge(run, world, tmp_path / folder)
    predictions = [pq.read_table(tmp_path / folder / "predictions.parquet") for folder in ("plain", "mapped")]
    assert predictions[0].equals(predictions[1])
    monkeypatch.setattr("tessera.content.mapped.PIECE", 7)
    pieced, whole = (read_tensors(train(mapped, world, tmp_path / where)) for where in ("pieced", "mapped"))
    for part, tensor in whole.items():
        torch.testing.assert_close(pieced[part], tensor, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "step"),
    [("bank", 7), ("mapped", 7), ("mapped later", 7), ("end_to_end", 7), ("frozen", 7), ("frozen", 21)],
)
def test_a_run_that_was_stopped_ends_with_the_same_bytes(
    name: str, step: int, world: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every phase; of the bank and its clock, too (that a killed process leaves such a state: test_ctr_training).

    Also where it goes on with mapped vectors, because memory did not hold them.
    """
    training = {"epochs": 1, "checkpoint_seconds": 0.0}
    run = run_of(**REGIMES.get(name, {}), mapped=name == "mapped", training=training)
    later = run_of(mapped=True, training=training) if name == "mapped later" else run
    whole = train(run, world, tmp_path / "whole").read_bytes()
    update, done = Engine._update, []

    def stopping(*arguments: Any) -> None:
        if len(done) == step:
            raise KeyboardInterrupt
        done.append(1)
        update(*arguments)

    monkeypatch.setattr(Engine, "_update", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(run, world, tmp_path / "stopped")
    assert not (tmp_path / "stopped/model.safetensors").exists()
    assert list((tmp_path / "stopped").rglob("checkpoint.safetensors"))

    def counting(*arguments: Any) -> None:
        done.append(1)
        update(*arguments)

    monkeypatch.setattr(Engine, "_update", counting)
    assert train(later, world, tmp_path / "stopped").read_bytes() == whole
    assert len(done) == json.loads((tmp_path / "whole/model.json").read_text())["steps"]  # none was done twice


# ---------------------------------------------------------------- bad input


def test_empty_histories_and_items_without_content_are_predicted() -> None:
    for regime in ("bank", "end_to_end", "frozen"):
        model = make(regime=regime)
        batch = replace(make_batch([0, 0, 5]), items=torch.tensor([4, 5, 6]))  # without content, picture, readable one
        loss = loss_of(model.losses(batch))
        assert torch.isfinite(loss)
        loss.backward()
        model.finish()
        assert torch.isfinite(model.eval()(batch)).all()


def test_a_query_that_nobody_asked_teaches_nothing() -> None:
    """Without a history there is no query: such rows are no positives of the contrastive loss."""
    model, batch = make(contrastive=1.0), make_batch([0, 0])
    assert float(model.losses(replace(batch, labels=torch.ones(2)))["contrastive"].value.detach()) == 0


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"learned": 0.5, "forwarded": 0.2}, "learned 0.5 is more than forwarded 0.2"),
        ({"regime": "end_to_end", "forwarded": 0.2, "learned": 0.2}, "forwarded is of regime bank"),
        ({"refresh": "age"}, "refresh age draws the targets that are read, and forwarded 1 and learned 1 take"),
        ({"regime": "frozen", "contrastive": 0.0}, "contrastive is 0"),
        ({"regime": "frozen", "pretraining": 0}, "pretraining is 0"),
        ({"ranker_gradient": False, "contrastive": 0.0}, "contrastive is 0"),
        ({"contrastive": 0.0, "content_id": 0.5, "pretraining": 2}, "pretraining learns from the contrastive loss"),
        ({"width": 9, "decoder_heads": 2}, "width 9 does not divide among 2 decoder_heads"),
        ({"documents": {"hidden": 9, "heads": 2}}, "hidden 9 does not divide among 2 heads"),
    ],
)
def test_settings_that_make_no_sense_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings(model="lemur", **{**ENCODED, **keys})


def test_content_that_is_not_there_or_of_others_is_told(world: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="make the content first"):
        build(settings(model="lemur", **ENCODED), replace(make_catalogue(), content=None))
    other = write_content(tmp_path / "shop", 29)
    with pytest.raises(ArtifactError, match="the content of 29 items, the samples have 30"):
        train(run_of(), (world[0], other), tmp_path)
