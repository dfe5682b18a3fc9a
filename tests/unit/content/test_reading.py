"""Reading both ways: every Qwen-VL that is loaded, every attention that takes a mask, against a mask made by hand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "language"))
from tiny_qwen_vl import TYPES, write_any_qwen_vl

from tessera.content.reading import Replaced, both_ways, picture_pieces, read_content
from tessera.language.models import LanguageModel, load_model
from tessera.language.questions import Pixels, picture_inputs, picture_positions
from tessera.settings.language import FolderModel


@pytest.fixture(scope="module", params=TYPES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of an architecture, as `save_pretrained` writes it."""
    return write_any_qwen_vl(tmp_path_factory.mktemp("models") / request.param, request.param)


def opened(folder: Path, attention: str) -> LanguageModel:
    return load_model(FolderModel(folder=str(folder), attention=attention, device="cpu"))  # type: ignore[arg-type]


def rows(model: LanguageModel) -> tuple[torch.Tensor, torch.Tensor, list[Pixels]]:
    """A picture of 2 x 3 tokens before a text, and one of 2 x 2 before a shorter one, padded."""
    processor: Any = model.image_processor
    values = 3 * int(processor.temporal_patch_size) * int(processor.patch_size) ** 2
    generator = torch.Generator().manual_seed(3)
    seen = [
        Pixels(torch.randn(high * wide, values, generator=generator), torch.tensor([1, high, wide]))
        for high, wide in ((4, 6), (4, 4))
    ]
    ids = [[*picture_pieces(model, seen[0]), 20, 21, 22, 23], [*picture_pieces(model, seen[1]), 24, 25]]
    length = max(map(len, ids))
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in ids])
    return torch.tensor([row + [model.pad_token] * (length - len(row)) for row in ids]), mask, seen


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@torch.no_grad()
def test_every_token_sees_every_other(folder: Path, attention: str) -> None:
    model = opened(folder, attention)
    ids, mask, seen = rows(model)
    full: Any = model.full
    assert full.config.get_text_config()._attn_implementation == attention
    both = read_content(model, ids, mask, seen, bidirectional=True).states
    # by hand: each row alone, without padding, under a mask that hides nothing, and positions as the model counts them
    for number, picture in enumerate(seen):
        own = ids[number, : int(mask[number].sum())][None]
        inputs = picture_inputs(own, [picture], int(full.config.image_token_id), model.device)
        positions, _ = full.model.get_rope_index(
            own, inputs["mm_token_type_ids"], image_grid_thw=inputs["image_grid_thw"],
            attention_mask=torch.ones_like(own),
        )  # fmt: skip
        nothing_hidden = torch.zeros(1, 1, own.shape[1], own.shape[1])
        alone = full.model(
            input_ids=own, attention_mask=nothing_hidden, position_ids=positions, use_cache=False, **inputs
        ).last_hidden_state[0]
        torch.testing.assert_close(both[number, : own.shape[1]], alone, atol=2e-5, rtol=1e-4)
    # the last token of the text moves the first token of the picture; one way it moves nothing before it
    other = ids.clone()
    other[0, -1] = 30
    moved = (read_content(model, other, mask, seen, bidirectional=True).states - both).abs().amax(-1)
    assert bool((moved[0] > 1e-7).all())
    assert not moved[1].any()
    one_way = [read_content(model, tokens, mask, seen, bidirectional=False).states for tokens in (ids, other)]
    assert not (one_way[1] - one_way[0])[0, :-1].any()
    # text alone goes through the language part alone
    words, given = ids[:, -3:].clone().fill_(20), torch.ones(2, 3, dtype=torch.long)
    words[:, 2] = torch.tensor([21, 22])
    texts = read_content(model, words, given, [], bidirectional=True).states
    assert bool(((texts[0] - texts[1]).abs().amax(-1) > 1e-7).all())


@torch.no_grad()
def test_positions_of_pictures_are_the_models_own(folder: Path) -> None:
    model = opened(folder, "sdpa")
    ids, mask, seen = rows(model)
    full: Any = model.full
    inputs = picture_inputs(ids, seen, int(full.config.image_token_id), model.device)
    grids = inputs["image_grid_thw"]
    own = picture_positions(ids, mask, grids, int(full.config.image_token_id), 2)
    theirs, _ = full.model.get_rope_index(ids, inputs["mm_token_type_ids"], image_grid_thw=grids, attention_mask=mask)
    real = mask.bool().expand(3, -1, -1)
    assert torch.equal(own[real], theirs[real])


@pytest.mark.parametrize("bidirectional", [True, False])
@torch.no_grad()
def test_what_the_language_part_reads_of_words_and_of_pictures(bidirectional: bool, folder: Path) -> None:
    model = opened(folder, "sdpa")
    ids, mask, seen = rows(model)
    full: Any = model.full
    grids = torch.stack([own.grid for own in seen])
    made = full.model.get_image_features(torch.cat([own.patches for own in seen]), grids).pooler_output
    expected = full.get_input_embeddings()(ids)
    expected[ids == int(full.config.image_token_id)] = torch.cat(list(made))
    read = read_content(model, ids, mask, seen, bidirectional)
    torch.testing.assert_close(read.inputs, expected, atol=1e-6, rtol=1e-5)
    words = ids[:, -3:].clone().fill_(20)
    texts = read_content(model, words, torch.ones_like(words), [], bidirectional)
    assert torch.equal(texts.inputs, full.get_input_embeddings()(words))
    # and the model is as it was
    assert not model.tower._forward_pre_hooks


@torch.no_grad()
def test_what_is_hidden_is_not_read(folder: Path) -> None:
    model = opened(folder, "sdpa")
    ids, mask, seen = rows(model)
    where = torch.zeros_like(ids, dtype=torch.bool)
    where[0, -2] = True
    vector = torch.full((model.width,), 0.3)
    states = read_content(model, ids, mask, seen, True, Replaced(where, vector)).states
    other = ids.clone()
    other[0, -2] = 31
    torch.testing.assert_close(read_content(model, other, mask, seen, True, Replaced(where, vector)).states, states)
    assert (read_content(model, ids, mask, seen, True).states - states).abs().max() > 1e-4
    # and the model is as it was
    assert not model.full.get_input_embeddings()._forward_hooks  # type: ignore[operator]


def test_the_mask_hides_padding_alone() -> None:
    added = both_ways(torch.tensor([[1, 1, 0]]), torch.float32)
    assert added.shape == (1, 1, 3, 3)
    assert added[0, 0].tolist() == [[0.0, 0.0, torch.finfo(torch.float32).min]] * 3
