"""Giving back what is hidden of items: tokens at their own position, patches behind one more layer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tessera.content.reading import Read, Replaced, both_ways
from tessera.embedding.item_content import ItemContent, Row, hidden_tokens, noised, patch_rows
from tessera.embedding.reader import RowReader
from tessera.training.losses import Losses, Term, reported
from tessera.training.machine import Machine

FEW = 1e-6
"""In place of no target at all: the share of the losses of a process that has none is then nothing."""


class PixelDecoder(nn.Module):
    """One more layer of the language part, which sees both ways, and a projection of a token to its patches."""

    def __init__(self, tower: Any, width: int, values: int) -> None:
        """
        Args:
            tower: the language part; its middle layer is copied.
            width: of its states.
            values: pixels of all patches of a token.
        """
        super().__init__()
        self.layer = copy.deepcopy(tower.layers[len(tower.layers) // 2]).requires_grad_(True).float()
        self.rotary = (tower.rotary_emb,)  # in a tuple: it is the tower's
        self.pixels = nn.Linear(width, values)
        nn.init.normal_(self.pixels.weight, std=0.02)
        nn.init.zeros_(self.pixels.bias)

    def forward(self, read: Read, attention: Tensor, where: Tensor) -> Tensor:
        """(tokens, values) of the tokens at `where` (batch, length).

        Args:
            read: what the model made of the rows.
            attention: mask that is added, (batch, 1, length, length).
            where: true at the tokens whose patches are given back.
        """
        states = read.states.float()
        turned = self.rotary[0](states, read.positions)
        states = self.layer(states, attention_mask=attention, position_embeddings=turned, position_ids=None)
        made: Tensor = self.pixels(states[where])
        return made


class Reconstruction(nn.Module):
    """One step: tokens and patches of items are hidden, and given back from what is left."""

    def __init__(self, reader: RowReader, content: ItemContent, settings: Any, seed: int, machine: Machine) -> None:
        """
        Args:
            reader: holds what is trained of the model.
            content: of the items.
            settings: of the phase: `mask_text`, `mask_picture`, `picture_weight`, `picture_targets`.
            seed: of what is hidden, and of noise.
            machine: processes.
        """
        super().__init__()
        self.reader, self.content, self.settings = reader, content, settings
        self.seed, self.machine = seed, machine
        model = reader.language
        embeddings = model.full.get_input_embeddings().weight  # type: ignore[operator]
        self.mask: nn.Parameter | None = None
        """What is read where a token is hidden: a vector of its own, which starts as the mean of all embeddings. No row
        of the tokenizer is needed for it, and none is taken from another token."""
        if settings.mask_text and content.attributes:
            self.mask = nn.Parameter(embeddings.detach().float().mean(0))
        self.decoder: PixelDecoder | None = None
        """None where no picture is given back: nothing is computed for it then."""
        if settings.mask_picture and settings.picture_weight and content.pictured:
            seen: Any = model.image_processor
            values = content.merged * 3 * int(seen.temporal_patch_size) * int(seen.patch_size) ** 2
            self.decoder = PixelDecoder(model.tower, model.width, values)
        if self.mask is None and self.decoder is None:
            raise ValueError(
                "continual: nothing is given back (mask_text, mask_picture); leave the phase out with steps: 0"
            )

    def losses(self, items: np.ndarray, step: int) -> Losses:
        """The losses of a step, means over the hidden tokens of all processes.

        Args:
            items: of the step, over all processes.
            step: its number.
        """
        mine = self.machine.share(items).tolist()
        # what is hidden of an item depends on the step and the item alone, not on who reads it
        generators = [np.random.default_rng((self.seed, 4, step, item)) for item in mine]
        whole = self.content.rows([self.content.whole(item) for item in mine])
        kept = [(row, generator) for row, generator in zip(whole, generators, strict=True) if row.ids]
        sums = {"text": self.zero(), "picture": self.zero()}
        counts = {"text": self.zero(), "picture": self.zero()}
        tokens = 0
        rows = [row for row, _ in kept]
        for batch in self.reader.batches(rows) if rows else []:
            hidden = [self._hide(*kept[number]) for number in batch]
            tokens += sum(len(row.ids) for row, _, _ in hidden)
            for name, (summed, count) in self._batch([rows[number] for number in batch], hidden).items():
                sums[name] = sums[name] + summed
                counts[name] = counts[name] + count
        weights = {"text": 1.0 if self.mask is not None else 0.0}
        weights["picture"] = self.settings.picture_weight if self.decoder is not None else 0.0
        losses = {
            name: Term(weights[name] * sums[name], counts[name].clamp(min=FEW))
            for name in ("text", "picture") if weights[name]
        }  # fmt: skip
        return {**losses, "tokens": reported(self.machine.total(self.zero() + tokens))}

    def given_back(self, items: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Those of the items of which anything is given back: where texts are not, those with a picture that is read.

        Raises:
            ValueError: there is none.
        """
        if self.mask is not None:
            return items
        seen = [item for item in items.tolist() if self.content.pixels(item) is not None]
        if not seen:
            raise ValueError("continual: texts are not given back (mask_text), and no item has a picture that is read")
        return np.array(seen, np.int64)

    def zero(self) -> Tensor:
        """() nothing, on the device."""
        return torch.zeros((), device=self.reader.language.device)

    # ------------------------------------------------------------ what is hidden

    def _hide(self, row: Row, generator: np.random.Generator) -> tuple[Row, np.ndarray, Tensor]:
        """A row with noise for some patches, which tokens (length,) are hidden, and which are noise, by number."""
        ids = np.array(row.ids)
        chance = self.settings.mask_text if self.mask is not None else 0.0
        hidden = (generator.random(len(ids)) < chance) & ~np.isin(ids, self.content.special)
        pixels, patches = row.pixels, torch.zeros(0, dtype=torch.int64)
        if pixels is not None and self.decoder is not None:
            merged = self.content.merged
            patches = hidden_tokens(pixels, self.settings.mask_picture, merged, generator)
            pixels = noised(pixels, patches, merged, generator)
        return Row(row.ids, pixels), hidden, patches

    def _batch(
        self, whole: Sequence[Row], hidden: Sequence[tuple[Row, np.ndarray, Tensor]]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """By name the sum of a loss and how many targets it has."""
        reader = self.reader
        rows = [row for row, _, _ in hidden]
        ids, mask = reader.pad(rows)
        masked = torch.zeros(ids.shape, dtype=torch.bool)
        for number, (_, some, _) in enumerate(hidden):
            masked[number, : len(some)] = torch.from_numpy(some)
        masked = masked.to(ids.device)
        replaced = Replaced(masked, self.mask) if self.mask is not None else None
        read = reader.read(rows, ids, mask, replaced)
        losses = {}
        if self.mask is not None:
            losses["text"] = self._text(read, ids, masked)
        if self.decoder is not None and any(row.pixels is not None for row in rows):
            losses["picture"] = self._picture(read, ids, mask, whole, [some for _, _, some in hidden])
        return losses

    def _text(self, read: Read, ids: Tensor, masked: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the hidden tokens, each from the state at its own position."""
        logits = self.reader.language.logits(read.states[masked]).float()
        return F.cross_entropy(logits, ids[masked], reduction="sum"), masked.sum().float()

    def _picture(
        self, read: Read, ids: Tensor, mask: Tensor, whole: Sequence[Row], noise: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Squared error of the hidden patches, the mean over a token's pixels."""
        assert self.decoder is not None
        language, merged = self.reader.language, self.content.merged
        image_token = int(language.full.config.image_token_id)  # type: ignore[union-attr, arg-type]
        where = torch.zeros_like(ids, dtype=torch.bool)
        targets = []
        for number, (row, tokens) in enumerate(zip(whole, noise, strict=True)):
            assert row.pixels is not None
            pieces = (ids[number] == image_token).nonzero()[:, 0]
            where[number, pieces[tokens.to(ids.device)]] = True
            patches = row.pixels.patches[patch_rows(tokens, merged)]
            targets.append(picture_targets(patches, self.settings.picture_targets).reshape(len(tokens), -1))
        wanted = torch.cat(targets).to(ids.device)
        # the decoder sees both ways, whatever the model does
        made = self.decoder(read, both_ways(mask, torch.float32), where)
        return (made.float() - wanted).square().mean(1).sum(), self.zero() + len(wanted)


def picture_targets(patches: Tensor, kind: Literal["pixels", "normalized"]) -> Tensor:
    """(rows, values) of patches what is to be given back: their pixels, or these with mean 0 and variance 1."""
    if kind == "pixels":
        return patches
    return (patches - patches.mean(1, keepdim=True)) / (patches.var(1, keepdim=True) + 1e-6).sqrt()
