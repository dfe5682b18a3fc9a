"""Models that cannot be read as a recipe reads them are refused before anything is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_language import WIDTH, tiny_model, tokenizer
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from tessera.embedding.recipe import Given, Recipe
from tessera.embedding.task import Places, Task
from tessera.language.models import LanguageModel, LanguageModelError, _tower, load_model
from tessera.language.probe import window
from tessera.settings.kinds import implementation
from tessera.settings.language import FolderModel, ItemPrompt
from tessera.settings.recipes.attributes import AttributesTable
from tessera.settings.recipes.crrl import CRRLTable
from tessera.settings.recipes.hidden import HiddenTable
from tessera.settings.recipes.interests import InterestsTable
from tessera.settings.recipes.lrcl import LRCLTable
from tessera.settings.recipes.moca import MoCaTable
from tessera.settings.recipes.pairs import PairsTable
from tessera.settings.recipes.scft import SCFTTable
from tessera.settings.recipes.text import TextTable

SHAPE: dict[str, Any] = {
    "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48, "max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
OTHERS: dict[str, dict[str, Any]] = {
    "gemma3_text": {"head_dim": 8, "sliding_window": 32, "query_pre_attn_scalar": 8},
    "mistral": {"sliding_window": 32},
    "gpt_neo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 32},
    "mpt": {"d_model": WIDTH, "n_heads": 4, "n_layers": 2},
    "lfm2": {"layer_types": ["full_attention", "conv"]},
    "ctrl": {"n_embd": WIDTH, "n_layer": 2, "n_head": 4, "dff": 48, "n_positions": 256},
    "modernbert-decoder": {"local_attention": 512, "global_attn_every_n_layers": 2},
    "bloom": {"n_layer": 2, "n_head": 4},
    "big_bird": {"attention_type": "block_sparse", "block_size": 4, "num_random_blocks": 1},
    "fnet": {},
    "nystromformer": {},
}
ENCODERS = ("fnet", "nystromformer", "big_bird")
MIXING = ("fnet", "nystromformer")


def full(kind: str, **changed: Any) -> Any:
    torch.manual_seed(0)
    settings = {**SHAPE, **OTHERS[kind], **changed, "vocab_size": len(tokenizer())}
    loader: Any = AutoModel if kind in ENCODERS else AutoModelForCausalLM
    return loader.from_config(AutoConfig.for_model(kind, **settings)).eval().requires_grad_(False)


def model(kind: str, **changed: Any) -> LanguageModel:
    of = "encoder" if kind in ENCODERS else "decoder"
    made = full(kind, **changed)
    return LanguageModel(made, _tower(made, of), tokenizer(), of, WIDTH, 256, None, torch.device("cpu"))


def recipe(table: Any, reader: LanguageModel, start: dict[str, Any] | None = None) -> Recipe:
    given = Given(ItemPrompt(), reader, Path("items.parquet"))
    made = LRCLTable(model="x", **(start or {})) if isinstance(table, CRRLTable) else None
    kind: type[Recipe] = implementation(table)
    return kind(table, given, implementation(made)(made, given) if made is not None else None)


TABLES = [
    TextTable(model="x"), AttributesTable(model="x"), InterestsTable(model="x"), HiddenTable(model="x", source="text"),
    SCFTTable(model="x"), PairsTable(model="x"), LRCLTable(model="x"), LRCLTable(model="x", preset="official"),
    LRCLTable(model="x", thoughts=0), LRCLTable(model="x", thoughts=2), CRRLTable(model="x"),
    CRRLTable(model="x", preset="official"), MoCaTable(model="x"), MoCaTable(model="x", attention="causal"),
]  # fmt: skip


@pytest.mark.parametrize("table", TABLES, ids=lambda table: f"{table.recipe}-{getattr(table, 'preset', '')}")
def test_usual_models_are_taken_and_nothing_is_drawn(table: Any) -> None:
    reader = tiny_model()
    before, weights = torch.get_rng_state(), {name: w.clone() for name, w in reader.full.state_dict().items()}
    recipe(table, reader).check_model()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(w, weights[name]) for name, w in reader.full.state_dict().items())
    assert not reader.full.training


@pytest.mark.parametrize("table", [TextTable(model="x"), SCFTTable(model="x"), LRCLTable(model="x")])
def test_usual_encoders_and_half_precision_are_taken(table: Any) -> None:
    recipe(table, tiny_model("encoder")).check_model()
    half = tiny_model(layers=8)
    half.full.to(torch.bfloat16)
    recipe(table, half).check_model()


@pytest.mark.parametrize("kind", MIXING)
@pytest.mark.parametrize("table", [TextTable(model="x"), AttributesTable(model="x"), SCFTTable(model="x")])
def test_what_reads_padding_is_refused(kind: str, table: Any) -> None:
    with pytest.raises(LanguageModelError, match=rf"recipe {table.recipe}: .*\({kind}\).*another vector beside"):
        recipe(table, model(kind)).check_model()


@pytest.mark.parametrize("kind", ["gemma3_text", "mistral", "gpt_neo"])
@pytest.mark.parametrize("preset", ["correct", "official"])
def test_a_window_shorter_than_texts_is_refused_of_what_reasons(kind: str, preset: str) -> None:
    for table in (LRCLTable(model="x", preset=preset), CRRLTable(model="x", preset=preset)):
        with pytest.raises(LanguageModelError, match=r"see 32 tokens back, and texts have up to 256.*max_tokens: 32"):
            recipe(table, model(kind)).check_model()
    # within the window nothing is lost
    recipe(LRCLTable(model="x", preset=preset, max_tokens=32), model(kind)).check_model()
    recipe(CRRLTable(model="x"), model(kind), {"max_tokens": 32}).check_model()
    # and what reads a text once has no tokens behind its padding
    recipe(TextTable(model="x"), model(kind)).check_model()


def test_a_window_is_that_of_layers_that_have_one() -> None:
    def config(kind: str, **settings: Any) -> Any:
        return AutoConfig.for_model(kind, **{**SHAPE, **settings})

    assert window(config("qwen2", sliding_window=32, use_sliding_window=False)) is None
    layers = {"layer_types": ["full_attention"] * 2}
    assert window(config("gemma3_text", sliding_window=32, **layers)) is None
    assert window(config("gemma3_text", sliding_window=32)) == 32
    assert window(config("mistral", sliding_window=None)) is None
    assert window(config("gpt_neo", **OTHERS["gpt_neo"])) == 32


def test_padding_that_counts_as_distance_is_refused_of_what_reasons() -> None:
    with pytest.raises(LanguageModelError, match="counts padding as distance"):
        recipe(LRCLTable(model="x"), model("mpt")).check_model()
    recipe(TextTable(model="x"), model("mpt")).check_model()


def test_what_keeps_no_keys_or_loses_count_is_refused_of_what_reasons() -> None:
    with pytest.raises(LanguageModelError, match=r"\(lfm2\) cannot be read so: IndexError.*scft"):
        recipe(LRCLTable(model="x"), model("lfm2")).check_model()
    with pytest.raises(LanguageModelError, match=r"\(ctrl\) .*reads or keeps of a text"):
        recipe(LRCLTable(model="x"), model("ctrl")).check_model()


def test_a_model_that_cannot_read_several_thoughts_in_a_row_is_taken_where_none_are() -> None:
    with pytest.raises(LanguageModelError, match=r"recipe crrl: .*\(bloom\) cannot be read so"):
        recipe(CRRLTable(model="x"), model("bloom")).check_model()
    recipe(CRRLTable(model="x", policy="vector", learns="both"), model("bloom")).check_model()
    recipe(CRRLTable(model="x", objective="contrastive"), model("bloom")).check_model()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable"), RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("cumsum_cuda_kernel does not have a deterministic implementation"),
    ],
)  # fmt: skip
def test_what_the_machine_lacks_is_no_fault_of_the_model(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = tiny_model()

    def fail(*arguments: Any, **named: Any) -> None:
        raise error

    monkeypatch.setattr(reader.tower, "forward", fail)
    with pytest.raises(type(error), match=str(error)):
        recipe(TextTable(model="x"), reader).check_model()


@pytest.mark.parametrize(("weight", "shown"), [(float("inf"), "nan"), (0.0, "0.0")])
def test_vectors_without_a_length_are_told_as_such(weight: float, shown: str) -> None:
    reader = tiny_model()
    reader.tower.norm.weight.fill_(weight)
    with pytest.raises(LanguageModelError, match=rf"a vector of length {shown}, expected a finite number above 0"):
        recipe(TextTable(model="x"), reader).check_model()


def test_a_model_that_changes_its_attention_has_its_own_again() -> None:
    reader = model("big_bird")
    recipe(TextTable(model="x"), reader).check_model()
    assert reader.tower.attention_type == "block_sparse"


def test_a_causal_architecture_is_refused_where_tokens_shall_see_both_ways() -> None:
    with pytest.raises(LanguageModelError, match=r"\(gpt_neo\) no token sees those after it.*attention: causal"):
        recipe(MoCaTable(model="x"), model("gpt_neo")).check_model()
    recipe(MoCaTable(model="x", attention="causal"), model("gpt_neo")).check_model()


def test_words_that_a_tokenizer_does_not_know_are_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tessera.language.probe.text_ids", lambda tokenizer, texts: [[7, 7]])
    recipe(MoCaTable(model="x"), tiny_model()).check_model()
    with pytest.raises(LanguageModelError, match="no token sees those after it"):
        recipe(MoCaTable(model="x"), model("gpt_neo")).check_model()


def test_a_decoder_whose_head_is_called_decoder_is_read_without_it() -> None:
    recipe(LRCLTable(model="x"), model("modernbert-decoder")).check_model()


def test_a_task_refuses_before_anything_is_made(tmp_path: Path) -> None:
    full("fnet").save_pretrained(tmp_path / "fnet")
    tokenizer().save_pretrained(tmp_path / "fnet")
    folder = FolderModel(folder=str(tmp_path / "fnet"), device="cpu", attention="eager")
    assert load_model(folder).kind == "encoder"
    task = Task(table=TextTable(model="x"), model=folder, prompt=ItemPrompt())
    places = Places(catalogue=str(tmp_path / "items.parquet"), captions={}, model=None)
    with pytest.raises(LanguageModelError, match=rf"{tmp_path / 'fnet'} \(fnet\)"):
        task.recipe(places, tmp_path / "states" / "one" / "two")
