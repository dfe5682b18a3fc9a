"""MME-SID as a whole: what is read of a history, training, scoring, and what is saved."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from asking import ask, summed
from asking import scorer as scorer_of
from pattern import ITEMS, write_dataset
from tiny_mme_sid import TABLES, WIDTH, make_run, write_inputs
from torch import Tensor

from tessera.artifacts.codes import Part, SemanticIds, write_codes
from tessera.artifacts.models import read_tensors, write_tensors
from tessera.data.dataset import load_dataset
from tessera.language.models import LanguageModel
from tessera.language.tokens import Frame
from tessera.recommenders.evaluate import evaluate_run
from tessera.recommenders.history_reader import HistoryReader
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.systems.base import TrainingHistories
from tessera.recommenders.systems.mme_sid import MMESID, HistoryBatches, make_frame
from tessera.recommenders.train import train_run
from tessera.settings.evaluation import Evaluation
from tessera.settings.systems.mme_sid import MMESIDSystem
from tessera.training.engine import Engine
from tessera.training.machine import Machine, seed_step

POPULARITY = np.arange(ITEMS + 1)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> RunInputs:
    return write_inputs(tmp_path_factory.mktemp("mme_sid"))


def build(inputs: RunInputs, adapted: bool = True, **settings) -> MMESID:
    """An untrained model; `adapted` gives LoRA weights that change something."""
    run = make_run(**settings)
    seed_step(1)
    model = MMESID.build(run, inputs, POPULARITY)
    if adapted:
        for name, weight in model.lora.items():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.2)
        with torch.no_grad():  # as if training had met items without a row: what never moved is not read when judged
            for name, weight in model.named_parameters():
                if name.endswith("absent"):
                    weight.add_(0.01)
    return model.eval()


HISTORIES = torch.tensor([[3, 1, 4, 1, 5, 9], [2, 7, 20, 0, 0, 0], [8, 6, 0, 0, 0, 0]])


def plain_state(model: MMESID, items: list[int]) -> Tensor:
    """The state after a history: one row, no padding, no cache."""
    language, frame = model.language, make_frame(model.language, model.settings)
    after = frame.after if model.settings.readout == "response" else ()
    before, behind = (language.embed(torch.tensor([list(ids)], dtype=torch.long)) for ids in (frame.before, after))
    read = model.tokens(torch.tensor(items, dtype=torch.long))[None]
    states = language.tower(inputs_embeds=torch.cat([before, read, behind], 1), use_cache=False).last_hidden_state
    return states[0, -1]


def plain_loss(model: MMESID, empty: bool) -> tuple[Tensor, int]:
    total, count = torch.zeros(()), 0
    vectors = model.heads.catalogue(model.scoring_tables)[model.heads.first :]
    for row in HISTORIES.tolist():
        items = [item for item in row if item]
        for place in range(0 if empty else 1, len(items)):
            scores = plain_state(model, items[:place]) @ vectors.T
            total = total - scores.log_softmax(0)[items[place] - model.heads.first]
            count += 1
    return total, count


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("readout", ["response", "item"])
@pytest.mark.parametrize("packed", [True, False])
def test_the_loss_and_its_gradients_are_those_of_one_row_a_prefix(packed, readout, empty, inputs):
    model = build(inputs, packed=packed, readout=readout, empty_history=empty, padding_class=empty, adapt="all")
    given = torch.nn.functional.pad(HISTORIES, (1, 0)) if empty else HISTORIES
    loss, count = summed(model, given)
    wanted, expected = plain_loss(model, empty)
    assert int(count) == expected
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=1e-4)
    names = [name for name, _ in model.named_parameters()]
    ours, plain = (torch.autograd.grad(value, list(model.parameters())) for value in (loss, wanted))
    assert any(name.startswith("lora") for name in names)
    for name, one, other in zip(names, ours, plain, strict=True):
        size = other.abs().max().clamp(min=1e-6)
        torch.testing.assert_close(one / size, other / size, rtol=0, atol=2e-4, msg=name)


def test_a_llama_like_model_in_bfloat16_reads_packed_prefixes_too(inputs):
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=50, attn_implementation="eager",
    )  # fmt: skip
    for dtype, close in ((torch.float64, 1e-6), (torch.bfloat16, 0.1)):
        tower = LlamaModel(config).to(dtype).eval()
        language = LanguageModel(tower, tower, None, "decoder", WIDTH, 128, None, torch.device("cpu"))
        reader = HistoryReader(language, Frame((4, 5, 6), (7, 8)), "response")
        items = torch.randn(2, 5, WIDTH).to(dtype)
        packed = reader.after_each(items, empty=True)
        for length in range(6):
            mask = (torch.arange(5) < length).long().expand(2, -1)
            alone = reader.after_all(items.masked_fill(mask[..., None] == 0, 99.0), mask)
            torch.testing.assert_close(packed[:, length], alone, rtol=0, atol=close)


def test_scores_are_those_of_training_whatever_is_read_at_once(inputs):
    for readout in ("response", "item"):
        model = build(inputs, readout=readout)
        histories = HISTORIES.numpy()
        lengths = (histories > 0).sum(1)
        whole = scorer_of(model)
        found = ask(whole, histories, lengths)
        assert found.shape == (3, ITEMS)
        vectors = model.heads.catalogue(model.scoring_tables)[1:]
        for row, items in enumerate(histories.tolist()):
            wanted = plain_state(model, [i for i in items if i]) @ vectors.T
            torch.testing.assert_close(found[row], wanted.detach(), rtol=1e-4, atol=1e-5)
        model.positions = 1
        torch.testing.assert_close(ask(whole, histories, lengths), found, rtol=1e-4, atol=1e-5)


def test_a_user_without_history_is_scored_from_the_instruction(inputs):
    for readout in ("response", "item"):
        model = build(inputs, readout=readout)
        scored = ask(scorer_of(model), np.zeros((1, 1), np.int64))
        wanted = plain_state(model, []) @ model.heads.catalogue(model.scoring_tables)[1:].T
        torch.testing.assert_close(scored[0], wanted.detach(), rtol=1e-4, atol=1e-5)


def test_a_share_without_histories_gives_no_loss_and_every_gradient(inputs):
    model = build(inputs)
    loss, count = summed(model, torch.zeros((0, 2), dtype=torch.long))
    assert int(count) == 0
    assert float(loss.detach()) == 0
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())


# ---------------------------------------------------------------- what is saved


def test_the_weights_hold_what_is_trained_and_neither_language_model_nor_tables(inputs):
    model = build(inputs)
    saved = model.state_dict()
    assert {name.split(".")[0] for name in saved} == {"tokens", "heads", "lora"}
    starts = {name for name in saved if name.endswith("present.start")}  # what learned vectors began as
    assert set(saved) - starts == {name for name, _ in model.named_parameters()}
    assert all(p.requires_grad for p in model.parameters())
    frozen = {p.data_ptr() for p in model.language.full.parameters() if not p.requires_grad}
    assert not frozen & {p.data_ptr() for p in saved.values()}
    again = build(inputs, adapted=False)
    again.load_state_dict(saved)
    scores = [ask(scorer_of(one), HISTORIES.numpy()) for one in (model, again)]
    assert torch.equal(*scores)
    with pytest.raises(RuntimeError, match="lora"):
        again.load_state_dict({name: value for name, value in saved.items() if "lora" not in name})


def test_only_adapters_drop_out_in_training(inputs):
    model = build(inputs, lora={"rank": 2, "alpha": 4, "dropout": 0.5})
    model.train()
    trained = {name for name, part in model.language.tower.named_modules() if part.training}
    assert trained
    assert all("lora_dropout" in name for name in trained)
    model.eval()
    assert not any(part.training for part in model.language.tower.modules())


def test_adapters_are_where_the_settings_say_and_nowhere_without_lora(inputs):
    layers = {name.split("/")[-3] for name in build(inputs, adapt="feed_forward").lora}
    assert layers == {"gate_proj", "up_proj", "down_proj"}
    assert {name.split("/")[-3] for name in build(inputs, adapt="all").lora} > layers
    frozen = build(inputs, lora=None)
    assert not len(frozen.lora)
    assert not any(p.requires_grad for p in frozen.language.full.parameters())


# ---------------------------------------------------------------- ablations


def test_codes_start_as_codebooks_or_at_random(inputs):
    books = read_tensors(Path(inputs.codes or "").with_name("model.safetensors"))
    first = build(inputs, standardize=False).tokens.codes[0].codebooks[0]
    assert torch.equal(first, books["codebooks.0.0"])
    scaled = build(inputs).tokens.codes[0].codebooks[1]
    ratio = scaled / books["codebooks.0.1"]
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio))
    random = build(inputs, start="random").tokens.codes[0].codebooks[0]
    assert random.shape == first.shape
    assert abs(float(torch.corrcoef(torch.stack([random.flatten(), first.flatten()])).detach()[0, 1])) < 0.4


@pytest.mark.parametrize(
    ("settings", "raw", "codes", "heads"),
    [
        ({}, 2, 2, 3),
        ({"raw": False}, 0, 2, 1),
        ({"codes": False}, 2, 0, 3),
        ({"tables": ["text"]}, 1, 1, 2),
        ({"scoring": "id"}, 2, 2, 1),
        ({"gate": False}, 2, 2, 3),
        ({"preset": "official"}, 2, 2, 3),
    ],
)
def test_every_ablation_trains(settings, raw, codes, heads, inputs):
    model = build(inputs, **settings)
    assert (len(model.tokens.raw), len(model.tokens.codes), 1 + len(model.scoring_tables)) == (raw, codes, heads)
    shares = model.heads.shares()
    assert shares is None if settings.get("gate") is False or heads == 1 else shares.shape == (ITEMS + 1, heads)
    loss, count = summed(model, HISTORIES)
    loss.backward()
    assert torch.isfinite(loss)
    assert int(count) > 0


def test_the_official_preset_is_what_was_published():
    official = MMESIDSystem(semantic_ids="x", model="y", preset="official")
    assert official.model_dump(include={"empty_history", "padding_class", "standardize", "scale_scores"}) == {
        "empty_history": True, "padding_class": True, "standardize": False, "scale_scores": False,
    }  # fmt: skip
    assert (official.gate_temperature, official.prompt, official.readout) == (1e-3, "short", "response")
    assert MMESIDSystem(semantic_ids="x", model="y", preset="official", padding_class=False).padding_class is False


def test_the_short_prompt_has_a_brace_and_no_template(inputs):
    model = build(inputs)
    tokenizer = model.language.tokenizer
    chat = make_frame(model.language, make_run().method)
    short = make_frame(model.language, make_run(prompt="short").method)
    assert tokenizer.decode(chat.before).startswith("<|im_start|>user")
    assert tokenizer.decode(short.before).startswith("{Items")
    assert chat.after == short.after
    assert tokenizer.decode(chat.after).endswith("assistant\n")


def test_narrow_codes_pass_a_trained_map(tmp_path):
    model = build(write_inputs(tmp_path, code_width=6))
    assert model.tokens.codes[0].map.weight.shape == (WIDTH, 6)
    assert torch.isfinite(summed(model, HISTORIES)[0])


# ---------------------------------------------------------------- batches


def test_first_items_are_targets_where_the_history_begins():
    offsets, items = np.array([0, 5, 7, 8]), np.array([1, 2, 3, 4, 5, 6, 7, 8])
    plain = HistoryBatches(offsets, items, 3, 100, empty=False)
    assert plain.targets == 5
    batches = HistoryBatches(offsets, items, 3, 100, empty=True)
    assert batches.targets == 8, "of the history of one item, too"
    rows = batches.batch(np.arange(4)).items
    assert sorted(map(tuple, rows.tolist())) == [(0, 1, 2, 3), (0, 6, 7, 0), (0, 8, 0, 0), (3, 4, 5, 0)]
    alone = HistoryBatches(np.array([0, 1, 2]), np.array([4, 9]), 3, 100, empty=True)
    assert alone.batch(np.arange(2)).items.tolist() == [[0, 4], [0, 9]]
    assert len(batches.batch(np.zeros(0, np.int64))) == 0


def test_the_number_of_targets_is_what_the_model_counts(inputs):
    offsets, items = np.array([0, 5, 7, 8]), np.array([1, 2, 3, 4, 5, 6, 7, 8])
    for empty in (False, True):
        model = build(inputs, empty_history=empty, max_length=2)
        batches = model.batches(make_run(), TrainingHistories(offsets, items))
        counted = [int(summed(model, batches.batch(part))[1]) for part in batches.plan(1, 0)]
        assert sum(counted) == batches.targets


# ---------------------------------------------------------------- training


@pytest.fixture(scope="module")
def long_run():
    return make_run({"epochs": 12, "patience": 100})


def test_it_learns_the_pattern_and_is_judged_like_others(long_run, inputs, data, tmp_path):
    output = tmp_path / "model.safetensors"
    train_run(long_run, data, inputs, output, tmp_path / "state")
    found = evaluate_run(
        long_run, Evaluation(), output, data, inputs, None, tmp_path / "e.parquet", tmp_path / "m.json"
    )
    assert found["metrics"]["Hit@5"] > 0.6  # nine of ten steps follow the pattern; chance is 0.2


def test_the_same_seed_gives_the_same_bytes_and_held_out_targets_reach_nothing(inputs, data, tmp_path):
    run = make_run({"epochs": 1}, lora={"rank": 2, "alpha": 4, "dropout": 0.2})
    other = write_dataset(tmp_path / "other", swap_targets=True)
    found = []
    for number, folder in enumerate((data, data, other)):
        output = tmp_path / str(number) / "model.safetensors"
        train_run(run, folder, inputs, output, tmp_path / f"state-{number}")
        found.append(output.read_bytes())
    assert found[0] == found[1] == found[2]


def test_training_that_was_stopped_goes_on_to_the_same_weights(inputs, data, tmp_path):
    run = make_run({"epochs": 2, "checkpoint_seconds": 0}, lora={"rank": 2, "alpha": 4, "dropout": 0.2})
    offsets, items = load_dataset(data).train_histories()

    def engine(state: Path, epochs: int, values: list[float]) -> Engine:
        settings = run.training.model_copy(update={"epochs": epochs})
        seed_step(run.seed)
        model = MMESID.build(run, inputs, POPULARITY)
        told = iter(values)
        changed = run.model_copy(update={"training": settings})
        program = model.program(changed, TrainingHistories(offsets, items), lambda: {"NDCG@10": next(told)})
        return Engine(model, program, settings, run.seed, state, Machine(settings))

    whole = engine(tmp_path / "whole", 2, [0.1, 0.2])
    whole.fit()
    engine(tmp_path / "stopped", 1, [0.1]).fit()
    resumed = engine(tmp_path / "stopped", 2, [0.2])
    resumed.fit()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


# ---------------------------------------------------------------- errors


def test_what_is_lacking_is_named(inputs, tmp_path):
    with pytest.raises(ValueError, match="'text'"):
        build(inputs.model_copy(update={"tables": {"ids": inputs.tables["ids"]}}))
    with pytest.raises(ValueError, match="did you mean 'text'"):
        build(inputs, tables=["texts"])
    with pytest.raises(ValueError, match="semantic IDs"):
        MMESID.build(make_run(), RunInputs(), POPULARITY)
    codes = np.zeros((ITEMS + 1, 1), np.int64)
    codes[0] = -1
    path = tmp_path / "codes.parquet"
    write_codes(path, SemanticIds(codes, tuple(Part(name, (3,)) for name in list(TABLES)[:1])), {}, {})
    write_tensors(path.with_name("model.safetensors"), {"mean": torch.zeros(1)})
    with pytest.raises(ValueError, match="codebooks"):
        build(inputs.model_copy(update={"codes": str(path)}))


def test_an_encoder_cannot_read_histories():
    tower = torch.nn.Linear(2, 2)
    language = LanguageModel(tower, tower, None, "encoder", 2, 8, None, torch.device("cpu"))
    with pytest.raises(ValueError, match="causal"):
        HistoryReader(language, Frame((1,), (2,)), "response")
