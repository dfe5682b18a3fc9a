"""TIGER: its batches, its loss beside the formula, what it reads and what it does not, and that it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from asking import ask, summed
from asking import scorer as scorer_of

from tessera.artifacts.codes import ABSENT, Part, SemanticIds, write_codes
from tessera.artifacts.models import read_tensors, write_tensors
from tessera.data.dataset import Cases, load_dataset
from tessera.evaluation.histories import Histories
from tessera.evaluation.judge import rank_cases, validation_metrics
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.systems import tiger
from tessera.recommenders.systems.base import TrainingHistories
from tessera.recommenders.train import training_histories
from tessera.serving.catalogue import Catalogue
from tessera.serving.lists import rank
from tessera.settings.evaluation import Evaluation
from tessera.settings.runs import Run
from tessera.settings.training import Training
from tessera.training.batches import PrefixBatches
from tessera.training.engine import Engine
from tessera.training.machine import Machine, seed_step

SMALL = {"dim": 32, "inner_dim": 64, "layers": 1, "heads": 2, "head_dim": 16, "dropout": 0.0, "max_length": 8}
CPU = torch.device("cpu")


def make_run(method: dict | None = None, **training) -> Run:
    loop = {"epochs": 3, "batch_tokens": 600, "learning_rate": 0.005, "device": "cpu", **training}
    return Run(
        system="s",
        recommender="tiger",
        seed=1,
        method={"recommender": "tiger", "semantic_ids": "c", **SMALL, **(method or {})},
        training=Training(**loop),
    )


def write_ids(path: Path, codes: list[list[int]], sizes: tuple[int, ...], parts: int = 1) -> RunInputs:
    rows = np.array([[ABSENT] * len(sizes) * parts, *[row * parts for row in codes]], np.int64)
    ids = SemanticIds(rows, tuple(Part(f"t{part}", sizes) for part in range(parts)))
    write_codes(path, ids, {}, {})
    return RunInputs(codes=str(path))


def grid(items: int = 30) -> list[list[int]]:
    """Item i is (i - 1) // 5, (i - 1) % 5."""
    return [[(item - 1) // 5, (item - 1) % 5] for item in range(1, items + 1)]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> RunInputs:
    return write_ids(tmp_path_factory.mktemp("codes") / "codes.parquet", grid(), (6, 5))


def build(run: Run, inputs: RunInputs, popularity: np.ndarray | None = None) -> tiger.TIGER:
    seed_step(run.seed)
    return tiger.TIGER.build(run, inputs, np.ones(31, np.int64) if popularity is None else popularity)


class Same:
    """The same scores (items,) after every history."""

    max_history = None

    def __init__(self, scores: torch.Tensor) -> None:
        self.scores = scores

    def __call__(self, histories: Histories) -> torch.Tensor:
        return self.scores.repeat(len(histories), 1)


# ---------------------------------------------------------------- batches


def test_every_item_but_the_first_is_a_target_once_after_what_stands_before_it():
    rng = np.random.default_rng(0)
    histories = [rng.integers(1, 100, n).tolist() for n in (5, 1, 0, 12, 2)]
    offsets = np.concatenate([[0], np.cumsum([len(h) for h in histories])])
    items = np.concatenate([np.array(h, np.int32) for h in histories])
    batches = PrefixBatches(offsets, items, 4, 30)
    expected = sorted(
        (u + 1, *h[max(0, end - 4) : end + 1]) for u, h in enumerate(histories) for end in range(1, len(h))
    )
    for epoch in range(2):
        plan = batches.plan(3, epoch)
        found = []
        for numbers in plan:
            batch = batches.batch(numbers)
            assert len(batch.items) in (len(expected) // len(plan), len(expected) // len(plan) + 1)
            for user, row, target in zip(batch.users, batch.items.numpy(), batch.targets, strict=True):
                found.append((int(user), *row[row > 0], int(target)))
                assert (np.diff((row > 0).astype(int)) <= 0).all()  # zeros on the right only
        assert sorted(found) == expected
    assert batches.targets == len(expected)
    again = PrefixBatches(offsets, items, 4, 30).plan(3, 1)
    assert all(np.array_equal(a, b) for a, b in zip(again, plan, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(batches.plan(3, 0), plan, strict=True))


def test_items_that_may_not_be_targets_stay_in_histories():
    allowed = np.ones(10, bool)
    allowed[[0, 5]] = False
    batches = PrefixBatches(np.array([0, 4]), np.array([1, 5, 6, 5]), 4, 100, allowed)
    only = batches.batch(np.concatenate(batches.plan(1, 0)))
    assert (only.users.tolist(), only.items.tolist(), only.targets.tolist()) == ([1], [[1, 5]], [6])


def test_no_targets_make_a_batch_that_the_model_takes(inputs):
    model = build(make_run(), inputs)
    learned = TrainingHistories(np.array([0, 2]), np.array([1, 2]))
    total, count = summed(model, model.batches(make_run(), learned).batch(np.array([], int)))
    assert float(total.detach()) == 0
    assert int(count) == 0
    total.backward()


# ---------------------------------------------------------------- model


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("summary", [True, False])
@pytest.mark.parametrize(("encoder", "pool"), [("bidirectional", False), ("causal", False), ("causal", True)])
def test_the_loss_is_the_sum_of_the_cross_entropies_of_the_codes(inputs, encoder, pool, summary, tied):
    """With a causal encoder, too, every target is scored as if its history were read to that end alone."""
    settings = {"layers": 2, "encoder": encoder, "pool_items": pool, "summary": summary, "tied": tied}
    model = build(make_run(settings), inputs).double()
    with torch.no_grad():  # first weights are so small that nothing would show
        for parameter in model.parameters():
            parameter.mul_(10)
    targets = [([4, 9, 30], 7), ([12], 3)]
    batch = Histories.of(np.array([[4, 9, 30], [12, 0, 0]]), users=np.array([1, 2]))
    batch = replace(batch, targets=torch.tensor([7, 3]))
    if encoder == "causal":
        batch, targets = Histories.of(np.array([[4, 9, 30, 7], [12, 3, 0, 0]])), [*targets, ([4, 9], 30), ([4], 9)]
    total, count = summed(model, batch)
    assert int(count) == len(targets)
    expected = 0.0
    for history, target in targets:
        memory = model.read(torch.tensor([history]), torch.tensor([len(history)]), None)
        first, second = grid()[target - 1]
        begin = model.start + memory.last[0] if summary else model.start
        states = model.decoder(torch.stack([begin, model.items.level(0)[first] * 32**0.5])[None], memory)[0]
        for level, code in enumerate((first, second)):
            part = [slice(0, 6), slice(6, 11)][level]
            vectors = model.items.weight[1:][part] if tied else model.output[part]
            expected = expected - F.log_softmax(vectors @ states[level], 0)[code]
    torch.testing.assert_close(total, expected)


def test_user_tokens_need_an_encoder_that_reads_them():
    with pytest.raises(ValueError, match=r"user_tokens.*bidirectional"):
        make_run({"user_tokens": 7})


def test_every_level_has_tokens_of_its_own(inputs):
    model = build(make_run(), inputs)
    tokens = model.items.tokens
    assert tokens.shape == (31, 2)
    assert tokens[0].tolist() == [0, 0]  # the padding item
    assert tokens[1].tolist() == [1, 7]
    assert tokens[30].tolist() == [6, 11]
    assert len(model.items.weight) == 12
    torch.testing.assert_close(model.items.level(1), model.items.weight[7:12])


def test_a_token_for_every_prefix_leaves_the_tree_as_it_is(inputs):
    codes = np.array([[ABSENT, ABSENT], *grid(), [5, 0], [ABSENT, ABSENT], [7, 0]])
    rows, sizes = tiger.prefixes_as_codes(codes, (9, 5))
    assert sizes == (7, 31)
    assert rows[1].tolist() == [0, 0]
    assert rows[6].tolist() == [1, 5]  # (1, 0) has a token that (0, 0) has not
    assert rows[31].tolist() == rows[26].tolist() == [5, 25]  # equal codes stay equal
    assert rows[32].tolist() == rows[0].tolist() == [ABSENT, ABSENT]
    assert rows[33].tolist() == [6, 30]
    model = build(make_run({"tokens": "prefixes", "scoring": "exact"}), inputs)
    assert len(model.items.weight) == 1 + 6 + 30
    scores = ask(scorer_of(model), np.array([[3, 4]]), np.array([2]))
    np.testing.assert_allclose(scores.exp().sum(1), 1, atol=1e-5)
    with pytest.raises(ValueError, match=r"prefixes.*catalogue"):
        make_run({"tokens": "prefixes", "loss": "vocabulary"})


def test_scores_depend_on_the_history_and_not_on_its_padding(inputs):
    scorer = scorer_of(build(make_run(), inputs))
    long = ask(scorer, np.array([[3, 4, 0, 0, 0], [9, 8, 7, 6, 5]]), np.array([2, 5]))
    alone = ask(scorer, np.array([[3, 4]]), np.array([2]))
    torch.testing.assert_close(long[:1], alone, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(alone, ask(scorer, np.array([[4, 3]]), np.array([2])), atol=1e-3)
    empty = ask(scorer, np.array([[0]]), np.array([1]))
    assert empty.isfinite().all()


def test_exact_and_a_wide_beam_score_alike_and_are_probabilities(inputs):
    exact = make_run({"scoring": "exact"})
    model = build(exact, inputs)
    rows, lengths = np.array([[3, 4, 6]]), np.array([3])
    one = ask(scorer_of(model), rows, lengths)
    np.testing.assert_allclose(one.exp().sum(1), 1, atol=1e-5)
    wide = make_run({"beams": 30})
    other = build(wide, inputs)
    torch.testing.assert_close(ask(scorer_of(other), rows, lengths), one, atol=1e-5, rtol=1e-5)


def test_user_tokens_reach_the_model_through_the_judge(inputs, data):
    run = make_run({"user_tokens": 7, "encoder": "bidirectional"})
    scorer = scorer_of(build(run, inputs))
    rows, lengths = np.array([[3, 4], [3, 4], [3, 4]]), np.array([2, 2, 2])
    scores = ask(scorer, rows, lengths, np.array([1, 2, 8]))
    assert torch.equal(scores[0], scores[2])  # 1 and 8 share a token
    assert not torch.allclose(scores[0], scores[1])
    cases = load_dataset(data).cases("valid")
    ranked = rank_cases(scorer, cases, Evaluation(mask_seen=False))
    history = cases.history(3)[-8:]
    alone = ask(scorer, history[None].astype(np.int64), np.array([len(history)]), cases.users[3:4])[0]
    assert ranked.scores[3] == pytest.approx(float(alone[cases.targets[3] - 1]), abs=1e-4)


def test_items_without_codes_are_left_out_with_a_warning(tmp_path, caplog):
    codes = grid()
    codes[4] = [ABSENT, ABSENT]
    inputs = write_ids(tmp_path / "codes.parquet", codes, (6, 5))
    run = make_run()
    with caplog.at_level("WARNING"):
        model = build(run, inputs)
    assert "1 of 30 items have no codes (the first is item 5)" in caplog.text
    learned = TrainingHistories(np.array([0, 4]), np.array([1, 5, 6, 5]))
    batches = model.batches(run, learned)
    _, count = summed(model, batches.batch(np.concatenate(batches.plan(1, 0))))
    assert int(count) == 1  # item 6 alone
    anew = make_run({"encoder": "bidirectional"})
    batches = build(anew, inputs).batches(anew, learned)
    only = batches.batch(np.concatenate(batches.plan(1, 0)))
    assert (only.users.tolist(), only.items.tolist(), only.targets.tolist()) == ([1], [[1, 5]], [6])
    scores = ask(scorer_of(model), np.array([[5, 6]]), np.array([2]))
    assert scores[0].argmin() == 4
    assert scores.isfinite().all()


@pytest.mark.parametrize("cold_share", [None, 0.3])
def test_what_no_beam_reached_is_ranked_but_never_recommended(cold_share, tmp_path):
    codes = grid()
    codes[6] = [ABSENT, ABSENT]  # item 7
    popularity = np.ones(31, np.int64)
    popularity[[0, 3, 12]] = 0
    method = {"beams": 2, **({"cold_share": cold_share} if cold_share else {})}
    model = build(make_run(method), write_ids(tmp_path / "codes.parquet", codes, (6, 5)), popularity).eval()
    histories = Histories(torch.tensor([[1, 2]]), torch.tensor([2]), torch.tensor([0]))
    with torch.no_grad():
        leaves = tiger.beam_search(
            model, model.read(histories.items, histories.lengths, None), model.trie, 2, "catalogue"
        )
        plain = model.score(histories, None)[0]
    ends = model.trie.leaf_of - model.trie.level_starts[-2]
    reached = {item for item in range(1, 31) if item != 7 and leaves[0, ends[item]] > -torch.inf}
    assert 5 <= len(reached) < 20  # two prefixes of at most five items
    # what an ensemble adds up: finite, one below the lowest
    assert plain.isfinite().all()
    if cold_share is None:
        assert plain.min() == plain[[item - 1 for item in reached]].min() - 1
    catalogue = Catalogue(Path("x"), ["", *(f"i{item}" for item in range(1, 31))], [""] * 31, popularity)
    scorer, history = scorer_of(model), [np.array([1, 2], np.int32)]
    lists = rank(scorer, catalogue, history, 30, seen=True)
    assert set(lists.items[0]) == reached | {0}
    assert np.isfinite(lists.scores[0][lists.items[0] > 0]).all()
    unreached = next(item for item in range(30, 0, -1) if item not in reached)
    some = max(reached)
    allowed = np.zeros(31, bool)
    allowed[[7, unreached]] = True
    assert not rank(scorer, catalogue, history, 5, allowed=allowed).items.any()
    allowed[some] = True
    assert rank(scorer, catalogue, history, 5, seen=True, allowed=allowed).items.tolist() == [[some, 0, 0, 0, 0]]
    # the judge: ranks of all targets are those of plain scores, lists hold what was reached
    targets = np.arange(1, 31, dtype=np.int32)
    cases = Cases(np.ones(30, np.int32), targets, np.arange(0, 61, 2), np.tile(np.array([1, 2], np.int32), 30))
    settings = Evaluation(mask_seen=False)
    judged = rank_cases(scorer, cases, settings, recommend=30)
    assert judged.ranks.tolist() == rank_cases(Same(plain), cases, settings).ranks.tolist()
    assert (judged.candidates == 30).all()
    assert all(set(row) == reached | {0} for row in judged.recommended)


def test_codes_of_several_tables_are_refused(tmp_path):
    inputs = write_ids(tmp_path / "codes.parquet", grid(), (6, 5), parts=2)
    with pytest.raises(ValueError, match=r"codes of 2 tables \(t0, t1\).*one code an item"):
        build(make_run(), inputs)


def test_cold_items_get_their_share(inputs):
    popularity = np.ones(31, np.int64)
    popularity[[0, 11, 12, 13]] = 0
    run = make_run({"cold_share": 0.2, "beams": 30})
    scores = ask(scorer_of(build(run, inputs, popularity)), np.array([[3, 4]]), np.array([2]))
    order = (scores[0].argsort(descending=True) + 1).tolist()
    assert sum(item in (11, 12, 13) for item in order[:5]) >= 1
    assert sum(item in (11, 12, 13) for item in order[:15]) == 3


# ---------------------------------------------------------------- training


def fit(run: Run, inputs: RunInputs, data: Path, state: Path) -> tuple[tiger.TIGER, list[dict]]:
    dataset = load_dataset(data)
    model = build(run, inputs, dataset.train_counts)
    learned = training_histories(dataset)
    state.mkdir(exist_ok=True)
    machine = Machine(run.training)

    def validate() -> dict[str, float]:
        return validation_metrics(scorer_of(model), dataset.cases("valid"), Evaluation(mask_seen=False))

    program = model.program(run, learned, validate)
    engine = Engine(model, program, run.training, run.seed, state, machine)
    return model, engine.fit()


def test_it_learns_which_item_follows_and_its_weights_are_enough_to_score(inputs, data, tmp_path):
    run = make_run(epochs=12)
    model, history = fit(run, inputs, data, tmp_path / "state")
    best = max(row["NDCG@10"] for row in history)
    assert best > 0.8  # by chance 0.15
    write_tensors(tmp_path / "model.safetensors", dict(model.state_dict()), {})
    again = build(make_run(), inputs)
    again.load_state_dict(read_tensors(tmp_path / "model.safetensors"))
    rows, lengths = np.array([[3, 4, 5]]), np.array([3])
    scores = ask(scorer_of(again), rows, lengths)
    assert torch.equal(scores, ask(scorer_of(model), rows, lengths))
    assert scores[0].argmax() == 5
    assert not {"codes", "cold", "items.tokens", "trie.code"} & set(model.state_dict())


def test_it_goes_on_after_a_stop_to_the_digit(inputs, data, tmp_path):
    whole, _ = fit(make_run({"dropout": 0.1}, epochs=2), inputs, data, tmp_path / "one")
    settings = make_run({"dropout": 0.1}, epochs=1, checkpoint_seconds=0)
    fit(settings, inputs, data, tmp_path / "two")
    resumed, history = fit(make_run({"dropout": 0.1}, epochs=2), inputs, data, tmp_path / "two")
    assert len(history) == 2
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


@pytest.mark.parametrize("scoring", ["beam", "exact"])
def test_many_items_are_scored_for_fewer_users_at_a_time(
    inputs: RunInputs, scoring: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token a prefix means a logit an item and beam: memory is bounded, and the scores are those of all at once."""
    model = build(make_run({"tokens": "prefixes", "scoring": scoring}), inputs)
    histories, lengths = np.array([[1, 2, 3], [4, 5, 0], [6, 0, 0]]), np.array([3, 2, 1])
    monkeypatch.setattr(tiger, "LOGITS", 1)
    other = build(make_run({"tokens": "prefixes", "scoring": scoring}), inputs)
    assert model.users_at_once > other.users_at_once == other.prefixes_at_once == 1
    few, whole = (ask(scorer_of(one), histories, lengths) for one in (other, model))
    torch.testing.assert_close(few, whole)
