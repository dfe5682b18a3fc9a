"""Pictures attend together, and rotary positions are counted at once, with the numbers of the library's own way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_vision import WORDS, tiny_built
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLVisionAttention

from tessera.language.built import make_model, train_tokenizer
from tessera.language.questions import picture_positions
from tessera.language.together import TogetherAttention, attend_together
from tessera.language.tokens import pad_rows

SMALL, WIDE = (1, 4, 4), (1, 4, 8)


@pytest.fixture(scope="module")
def full() -> Any:
    """A tiny vision model with random weights."""
    settings = tiny_built()
    return make_model(settings, train_tokenizer(WORDS, settings))


def seen(full: Any, grids: list[tuple[int, int, int]]) -> list[torch.Tensor]:
    """What the vision part gives for random pictures, and the gradients of its weights."""
    grid = torch.tensor(grids)
    patches = torch.randn(int(grid.prod(1).sum()), 3 * 2 * 14 * 14, generator=torch.Generator().manual_seed(1))
    full.zero_grad()
    states = full.model.visual(patches, grid_thw=grid).pooler_output
    (states * torch.linspace(-1, 1, states.numel()).view_as(states)).sum().backward()
    return [states.detach(), *(part.grad.clone() for part in full.model.visual.parameters())]


@pytest.mark.parametrize("grids", [[SMALL] * 5, [WIDE] * 2, [SMALL], [SMALL, WIDE, SMALL]])
def test_pictures_give_the_same_bits_together_and_alone(full: Any, grids: list[tuple[int, int, int]]) -> None:
    blocks = full.model.visual.blocks
    assert all(type(block.attn) is TogetherAttention for block in blocks)
    together = seen(full, grids)
    for block in blocks:
        block.attn.__class__ = Qwen2_5_VLVisionAttention
    alone = seen(full, grids)
    attend_together(full)
    assert all(type(block.attn) is TogetherAttention for block in blocks)
    assert len(together) == len(alone) > 5
    assert all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))


def test_pictures_of_one_size_are_not_looped_over(full: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("picture by picture")

    monkeypatch.setattr(Qwen2_5_VLVisionAttention, "forward", refuse)
    seen(full, [SMALL] * 3)
    with pytest.raises(AssertionError, match="picture by picture"):
        seen(full, [SMALL, WIDE])


@pytest.mark.parametrize("grids", [[SMALL, SMALL, SMALL], [WIDE, SMALL, (1, 8, 4)]])
def test_positions_are_those_that_the_model_counts(full: Any, grids: list[tuple[int, int, int]]) -> None:
    image, merge = int(full.config.image_token_id), 2
    tokens = [high * wide // merge**2 for _, high, wide in grids]
    rows = [
        [25, 26, *[image] * tokens[0], 27, 28, 29],
        [25, 26, 27, 28],  # a text between pictures
        [*[image] * tokens[1], 27],
        [25, *[image] * tokens[2]],
    ]
    ids, mask = pad_rows(rows, int(full.config.text_config.pad_token_id or 0))
    grid = torch.tensor(grids)
    wanted, _ = full.model.get_rope_index(
        ids, image_grid_thw=grid, attention_mask=mask, mm_token_type_ids=(ids == image).int()
    )
    assert torch.equal(picture_positions(ids, mask, grid, image, merge), wanted)
