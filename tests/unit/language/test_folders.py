"""Folders of language models that lack a part, are damaged, or lead elsewhere: one line, before anything is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tessera.artifacts.language_folder import FolderError, check_language_folder
from tessera.data.files import model_files
from tessera.language.models import LanguageModelError, load_model
from tessera.plan.graph import Plan
from tessera.plan.required import check_files
from tessera.settings.base import ConfigError
from tessera.settings.config import load
from tessera.settings.language import FolderModel

Damage = Callable[[Path], None]


def edited(name: str, **keys: Any) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / name
        found = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps({**found, **keys}))

    return damage


def written(name: str, content: str | bytes) -> Damage:
    return lambda folder: (
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content) and None
    )


def cut(name: str, by: int = 7) -> Damage:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-by]) and None


def without(*names: str) -> Damage:
    return lambda folder: [(folder / name).unlink() for name in names] and None


def sharded(change: Callable[[dict[str, str]], Any]) -> Damage:
    """The weights in two files with an index."""

    def damage(folder: Path) -> None:
        from transformers import AutoModelForCausalLM

        AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder, max_shard_size="20KB")
        (folder / "model.safetensors").unlink(missing_ok=True)
        path = folder / "model.safetensors.index.json"
        index = json.loads(path.read_text())
        assert len(set(index["weight_map"].values())) > 1
        change(index["weight_map"])
        path.write_text(json.dumps(index))

    return damage


CASES: dict[str, tuple[Damage, str]] = {
    "no tokenizer": (without("tokenizer.json"), r"qwen2: lacks the tokenizer \(one of tokenizer\.json, vocab\.json"),
    "no weights": (without("model.safetensors"), r"qwen2: lacks model\.safetensors; fetch"),
    "no config": (without("config.json"), r"there is no config\.json"),
    "config cut": (cut("config.json"), r"config\.json: is not JSON \(.*fetch or save it again"),
    "config a list": (written("config.json", "[1]"), r"config\.json: expected a JSON object"),
    "config deep": (written("config.json", "[" * 100_000), r"config\.json: is not JSON"),
    "tokenizer cut": (cut("tokenizer.json"), r"tokenizer\.json: is not JSON"),
    "tokenizer large and cut": (
        written("tokenizer.json", '{"a": "' + "x" * 2_000_000), r"tokenizer\.json: is cut off or no JSON object"
    ),
    "tokenizer_config a word": (written("tokenizer_config.json", '"x"'), r"tokenizer_config\.json: expected a JSON"),
    "no UTF-8": (written("generation_config.json", b"{\xff}"), r"generation_config\.json: is not JSON"),
    "weights cut": (cut("model.safetensors"), r"model\.safetensors: is cut off, damaged or no safetensors"),
    "weights empty": (written("model.safetensors", b""), r"model\.safetensors: is cut off"),
    "weights longer": (
        lambda folder: written("model.safetensors", (folder / "model.safetensors").read_bytes() + b"x")(folder),
        r"model\.safetensors: is cut off",
    ),
    "weights a pointer": (
        written("model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 988097824\n"),
        r"model\.safetensors: is cut off",
    ),
    "shard gone": (sharded(lambda m: m.update(x="model-9.safetensors")), r"lacks model-9\.safetensors"),
    "shard lacks a tensor": (
        sharded(lambda m: m.update({"no.weight": sorted(m.values())[0]})), r"safetensors: lacks no\.weight, which"
    ),
    "shard elsewhere": (sharded(lambda m: m.update(x="../other/model.safetensors")), r"names '\.\./other/model"),
    "index empty": (sharded(lambda m: m.clear()), r"index\.json: has no weight_map"),
    "index of numbers": (sharded(lambda m: m.update(x=3)), r"index\.json: has no weight_map"),
    "adapter": (
        edited("adapter_config.json", base_model_name_or_path="other/model", peft_type="LORA"),
        r"adapter_config\.json: this folder holds an adapter.*merge it",
    ),
    "attention of a repository": (
        edited("config.json", _attn_implementation="kernels-community/flash-attn2"),
        r"config\.json: _attn_implementation is 'kernels-community/flash-attn2', which asks for code",
    ),
    "attention of a part": (
        edited("config.json", attn_implementation={"text_config": "me/kernel@main"}), r"attn_implementation is .*code"
    ),
    "experts of a repository": (
        edited("config.json", text_config={"_experts_implementation": "me/experts"}), r"_experts_implementation is"
    ),
    "kernels": (edited("config.json", use_kernels=True), r"use_kernels asks for kernels"),
    "weights of a backbone": (edited("config.json", use_pretrained_backbone=True), r"asks for weights of another"),
    "layers beyond measure": (edited("config.json", num_hidden_layers=10**12), r"num_hidden_layers is 1,000,000,0"),
    "quantised by others": (
        edited("config.json", quantization_config={"quant_method": "mxfp4"}), r"quantised by 'mxfp4', whose code"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "told"), CASES.values(), ids=CASES)
def test_a_folder_that_is_not_whole_is_refused_before_anything_is_loaded(
    qwen2: Path, damage: Damage, told: str
) -> None:
    check_language_folder(qwen2)
    damage(qwen2)
    with pytest.raises(FolderError, match=told) as raised:
        check_language_folder(qwen2)
    assert "\n" not in str(raised.value)
    with pytest.raises(LanguageModelError, match=told):
        load_model(FolderModel(folder=str(qwen2)))


def test_what_is_whole_is_read(qwen2: Path, bert: Path, built: Path) -> None:
    for folder in (qwen2, bert, built):
        check_language_folder(folder)
    sharded(lambda _: None)(qwen2)
    assert load_model(FolderModel(folder=str(qwen2))).kind == "decoder"
    # names that mean nothing, and code beside an architecture that is known, do no harm
    edited("config.json", _name_or_path="other/model", auto_map={"AutoModel": "evil.Model"})(bert)
    (bert / "evil.py").write_text(f"open({str(bert / 'ran')!r}, 'w')")
    assert load_model(FolderModel(folder=str(bert))).kind == "encoder"
    assert not (bert / "ran").exists()
    without("preprocessor_config.json")(built)
    with pytest.raises(FolderError, match="lacks the image processor"):
        check_language_folder(built)


def test_attention_that_is_not_installed_is_not_fetched(qwen2: Path) -> None:
    with pytest.raises(LanguageModelError, match="flash_attention_2 needs the package flash-attn"):
        load_model(FolderModel(folder=str(qwen2), attention="flash_attention_2"))


def test_the_config_is_refused(qwen2: Path) -> None:
    settings = {
        "datasets": {"x": {"source": "bazaar"}}, "models": {"m": {"folder": str(qwen2)}},
        "tables": {"t": {"recipe": "text", "model": "m"}}, "systems": {"s": {"items": {"table": "t"}}},
        "experiment": {"datasets": ["x"], "systems": ["s"], "backbones": ["sasrec"], "seeds": [1]},
    }  # fmt: skip
    check_files(Plan(load(settings)))
    without("tokenizer.json")(qwen2)
    with pytest.raises(ConfigError, match=r"models\.m\.folder: .*lacks the tokenizer"):
        check_files(Plan(load(settings)))


def test_every_chat_template_is_part_of_the_fingerprint(qwen2: Path) -> None:
    (qwen2 / "additional_chat_templates").mkdir()
    more = qwen2 / "additional_chat_templates" / "tool_use.jinja"
    more.write_text("x")
    assert more in model_files(qwen2)


# ---------------------------------------------------------------- tokens


@pytest.mark.parametrize("most", [0, "long", [1, 2]])
def test_a_longest_text_that_is_no_number_is_refused(qwen2: Path, most: Any) -> None:
    edited("tokenizer_config.json", model_max_length=most)(qwen2)
    with pytest.raises(LanguageModelError, match=r"tokenizer_config\.json: model_max_length is"):
        load_model(FolderModel(folder=str(qwen2)))


def test_a_tokenizer_that_gives_no_token_is_refused(qwen2: Path) -> None:
    empty = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": None, "post_processor": None, "decoder": None,
        "model": {"type": "BPE", "vocab": {}, "merges": []},
    }  # fmt: skip
    written("tokenizer.json", json.dumps(empty))(qwen2)
    with pytest.raises(LanguageModelError, match="its tokenizer makes no token of"):
        load_model(FolderModel(folder=str(qwen2)))


def test_a_tokenizer_of_a_larger_model_is_refused(qwen2: Path) -> None:
    path = qwen2 / "tokenizer.json"
    found = json.loads(path.read_text())
    last = max(found["model"]["vocab"], key=found["model"]["vocab"].__getitem__)
    found["model"]["vocab"][last] += 5000
    path.write_text(json.dumps(found))
    with pytest.raises(LanguageModelError, match=r"its tokenizer has tokens up to \d+, the model embeds"):
        load_model(FolderModel(folder=str(qwen2)))


def test_a_token_outside_of_the_embeddings_is_told_where_it_occurs(qwen2: Path) -> None:
    model = load_model(FolderModel(folder=str(qwen2)))
    rows = len(model.full.get_input_embeddings().weight)
    assert model.embed(torch.tensor([[rows - 1]])).shape == (1, 1, 32)
    for wrong in (rows, -1):
        with pytest.raises(LanguageModelError, match=f"outside of the model's {rows} embeddings"):
            model.embed(torch.tensor([[3, wrong]]))


# ---------------------------------------------------------------- damage at random


@pytest.mark.parametrize("seed", range(4))
def test_bytes_that_are_damaged_are_told_in_one_line_or_do_no_harm(qwen2: Path, tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    names = [path.name for path in sorted(qwen2.iterdir()) if path.suffix in (".json", ".jinja", ".safetensors")]
    refused: list[tuple[Path, str]] = []
    for number in range(8):
        folder = tmp_path / f"damaged-{number}"
        shutil.copytree(qwen2, folder)
        path = folder / names[int(random.integers(len(names)))]
        content = bytearray(path.read_bytes())
        for _ in range(int(random.integers(1, 6))):
            # what changes the meaning of JSON; not the weights' own digits, which any file may hold
            place = int(random.integers(min(len(content), 400)))
            content[place : place + int(random.integers(3))] = (
                random.choice(list(b'0-9"{}[],:x'), 1).astype(np.uint8).tobytes()
            )
        path.write_bytes(content)
        try:
            load_model(FolderModel(folder=str(folder)))
        except LanguageModelError as error:
            refused.append((folder, str(error)))
    assert refused
    assert all(str(folder) in told and "\n" not in told for folder, told in refused), refused
