"""MME-SID (CIKM 2025): a language model reads items as fused raw tables and code vectors, and scores the catalogue.

Semantic IDs are features here and not what is generated: the state after a history is compared with every item.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tessera.artifacts.codes import Part, SemanticIds, read_codebooks, read_codes
from tessera.artifacts.tables import read_item_table
from tessera.evaluation.histories import Histories
from tessera.language.lora import Adapters, add_lora, drop_out, lora_weights
from tessera.language.models import LanguageModel, load_model
from tessera.language.tokens import Frame, chat_frame, plain_frame
from tessera.recommenders.history_reader import HistoryReader
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.item_tokens import CodeBranch, ItemTokens, RawBranch, unit_codebooks
from tessera.recommenders.score_heads import PopularityGate, ScoreHeads
from tessera.recommenders.systems.base import Catalogue, TrainingHistories, VectorRecommender
from tessera.settings.base import did_you_mean
from tessera.settings.runs import Run
from tessera.settings.systems.mme_sid import MMESIDSystem
from tessera.training.batches import WindowBatches
from tessera.training.losses import Losses, Term
from tessera.training.machine import pick_device
from tessera.training.phases import Position


class MMESID(VectorRecommender):
    """A language model over items.

    Its state_dict is what is trained: adapters, projections, code vectors, fusion, gate and ID vectors. The language
    model and the raw tables are files of their own.
    """

    def __init__(
        self,
        settings: MMESIDSystem,
        language: LanguageModel,
        tokens: ItemTokens,
        heads: ScoreHeads,
        frame: Frame,
        items_at_once: int = 2**12,
    ) -> None:
        """
        Args:
            settings: of the system.
            language: freshly loaded; adapters are put on it.
            tokens: items as the language model reads them.
            heads: scores of items.
            frame: tokens before and after the items of a history.
            items_at_once: padded items of histories that are read at once for scores.
        """
        super().__init__()
        self.settings = settings
        self.language = language
        self.tokens = tokens
        self.heads = heads
        self.reader = HistoryReader(language, frame, settings.readout)
        self.positions = items_at_once * (1 + len(self.reader.after))
        self.max_history = settings.max_length
        self.lora = Adapters()
        if settings.lora is not None:
            add_lora(language.tower, settings.lora, settings.adapt)
            self.lora.update({name.replace(".", "/"): p for name, p in lora_weights(language.tower).items()})

    @classmethod
    def build(cls, run: Run, inputs: RunInputs, popularity: np.ndarray) -> MMESID:
        """See `Recommender.build`.

        Args:
            run: with the resolved language model.
            inputs: semantic IDs, the tables that they were made from, and the folder of a model that was built.
            popularity: (items + 1,) training interactions an item.
        Raises:
            ValueError: an input that is needed was not given, or does not fit.
        """
        settings = run.method
        assert isinstance(settings, MMESIDSystem)
        if run.model is None or inputs.codes is None:
            raise ValueError(f"system {run.system!r} reads a language model and semantic IDs, but they were not given")
        items = len(popularity) - 1
        language = load_model(run.model, Path(inputs.model) if inputs.model else None)
        width = language.width
        ids = read_codes(inputs.codes, items)
        parts = _chosen(settings, ids)
        raw = [_raw_branch(inputs, part.name, items, width, settings) for _, part in parts if settings.raw]
        books = read_codebooks(inputs.codes) if settings.codes else {}
        codes = [_code_branch(ids, books, number, width, settings) for number, _ in parts if settings.codes]
        tokens = ItemTokens(raw, codes, width, settings.fusion)
        scoring = len(raw) if settings.scoring == "fused" else 0
        gated = settings.gate and scoring > 0
        gate = PopularityGate(torch.from_numpy(popularity), 1 + scoring, settings.gate_temperature) if gated else None
        heads = ScoreHeads(items, width, gate, width**-0.5 if settings.scale_scores else 1.0, settings.padding_class)
        at_once = max(run.training.batch_tokens, 1)
        frame = make_frame(language, settings)
        model = cls(settings, language, tokens, heads, frame, at_once)
        return model.to(pick_device(run.training.device))

    def item_rows(self) -> Collection[str]:
        """The vectors of the ID head."""
        return ["heads.vectors"]

    def batches(self, run: Run, histories: TrainingHistories) -> HistoryBatches:
        """Windows of training histories; `batch_tokens` counts items, each of which is read once and answered once."""
        size, empty = self.settings.max_length + 1, self.settings.empty_history
        return HistoryBatches(histories.offsets, histories.items, size, run.training.batch_tokens, empty)

    def _apply(self, fn: Any, recurse: bool = True) -> MMESID:
        """The language model goes where the module goes, though its weights are not the module's."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.language.move(self.heads.vectors.device)
        return self

    def train(self, mode: bool = True) -> MMESID:
        """Training mode; of the language model only the adapters drop out."""
        super().train(mode)
        if mode:
            drop_out(self.language.tower)
        else:
            self.language.tower.eval()
        return self

    @property
    def scoring_tables(self) -> list[RawBranch]:
        """The raw tables that have a score head."""
        return list(self.tokens.raw) if self.settings.scoring == "fused" else []  # type: ignore[arg-type]

    def losses(self, histories: Histories, at: Position) -> Losses:
        """The loss over all targets of windows; see `HistoryBatches`."""
        read, targets, valid = self._examples(histories.items)
        if not bool(valid.any()):
            # a process whose share is empty still has a loss to give
            nothing = sum((p.sum() * 0 for p in self.parameters()), self.heads.vectors.new_zeros(()))
            return {"recommendation": Term(nothing, valid.sum())}
        states = self.states(read, valid)
        return {"recommendation": Term(self.heads.loss(states, targets[valid], self.scoring_tables), valid.sum())}

    def catalogue(self) -> Catalogue:
        """Items as tokens, and as the heads score them."""
        tokens = self.tokens.catalogue(len(self.heads.vectors) - 1)
        return Catalogue(tokens, self.heads.catalogue(self.scoring_tables))

    def users(self, histories: Histories, catalogue: Catalogue) -> Tensor:
        """(batch, 1, width) the state after the whole history; an empty one is a row of 0."""
        items = histories.items
        rows = max(1, self.positions // (items.shape[1] + len(self.reader.after)))
        parts = [self.reader.after_all(catalogue.read[part], (part > 0).long()) for part in torch.split(items, rows)]
        return torch.cat(parts)[:, None]

    def _examples(self, histories: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(batch, n) items that are read, (batch, k) targets, and which of them are real."""
        if not self.settings.empty_history:
            return histories[:, :-1], histories[:, 1:], histories[:, 1:] > 0
        begins = histories[:, :1] == 0
        items = torch.where(begins, histories[:, 1:], histories[:, :-1])
        valid = items > 0
        valid[:, :1] &= begins
        return items[:, :-1], items, valid

    def states(self, items: Tensor, valid: Tensor) -> Tensor:
        """(targets, width) the states before the targets.

        Args:
            items: (batch, n) items that are read, padded on the right.
            valid: (batch, k) which prefixes are asked for: after 1, 2, ... items, or with k = n + 1 after 0, 1, ...
        """
        empty = valid.shape[1] > items.shape[1]
        unique, place = torch.unique(items, return_inverse=True)
        vectors = self.tokens(unique)[place]
        if self.settings.packed:
            return self.reader.after_each(vectors, empty)[valid]
        rows, lengths = valid.nonzero(as_tuple=True)
        lengths = lengths if empty else lengths + 1
        mask = torch.arange(items.shape[1], device=items.device) < lengths[:, None]
        return self.reader.after_all(vectors[rows], mask.long())


class HistoryBatches(WindowBatches):
    """Windows of histories; a 0 before the first item says that it is predicted too, from the empty history."""

    def __init__(self, offsets: np.ndarray, items: np.ndarray, size: int, tokens: int, empty: bool) -> None:
        """
        Args:
            offsets: (users + 1,) where histories begin in `items`.
            items: histories, one after the other.
            size: most items of a window, its last target included.
            tokens: padded items a batch.
            empty: predict first items too.
        """
        super().__init__(offsets, items, size, 1, tokens)
        self.empty = empty
        if empty:  # of a history of one item there is its first item to predict
            starts = np.concatenate([self.starts, offsets[:-1][np.diff(offsets) == 1]])
            lengths = np.concatenate([self.lengths, np.ones(len(starts) - len(self.lengths), self.lengths.dtype)])
            order = np.argsort(starts, kind="stable")
            self.starts, self.lengths = starts[order], lengths[order]
        self.begins = np.isin(self.starts, offsets[:-1])
        self.targets += int(self.begins.sum()) * empty

    def batch(self, numbers: np.ndarray) -> Histories:
        """The windows; one column more with `empty`."""
        windows = super().batch(numbers)
        if not self.empty:
            return windows
        rows = windows.items
        space = rows.new_zeros(len(rows), 1)
        begins = torch.from_numpy(self.begins[numbers])[:, None]
        return replace(windows, items=torch.where(begins, torch.cat([space, rows], 1), torch.cat([rows, space], 1)))


# ---------------------------------------------------------------- what it is built from


def make_frame(language: LanguageModel, settings: MMESIDSystem) -> Frame:
    """What the language model is told around the items: the chat template, or the published short form of it.

    The short form is the instruction after an opening brace, without system message and template; after the items
    comes what the template has there.
    """
    chat = chat_frame(language, f"{settings.instruction} ", settings.system_message, answer=True)
    if settings.prompt == "chat":
        return chat
    return Frame(plain_frame(language, "{" + settings.instruction, end=False).before, chat.after)


def _chosen(settings: MMESIDSystem, ids: SemanticIds) -> list[tuple[int, Part]]:
    """Number and description of the parts that the system reads."""
    names = [part.name for part in ids.parts]
    wanted = names if settings.tables is None else settings.tables
    for name in wanted:
        if name not in names:
            raise ValueError(f"mme_sid: tables: {name!r} is no part of the semantic IDs{did_you_mean(name, names)}")
    return [(number, part) for number, part in enumerate(ids.parts) if part.name in wanted]


def _raw_branch(inputs: RunInputs, name: str, items: int, width: int, settings: MMESIDSystem) -> RawBranch:
    if name not in inputs.tables:
        raise ValueError(f"mme_sid reads the item table {name!r} that its codes were made from, but no file was given")
    vectors, present = read_item_table(inputs.tables[name], items)
    lost = inputs.lost(name, items)
    return RawBranch(torch.from_numpy(vectors), torch.from_numpy(present), width, settings.standardize, lost)


def _code_branch(
    ids: SemanticIds, books: dict[tuple[int, int], Tensor], part: int, width: int, settings: MMESIDSystem
) -> CodeBranch:
    levels = ids.parts[part].meaningful
    lacking = [level for level in range(levels) if (part, level) not in books]
    if lacking:
        raise ValueError(
            f"mme_sid reads the quantiser's codebooks; there is none of {ids.parts[part].name!r}, level {lacking[0]}"
        )
    codes = torch.from_numpy(ids.of(part)[:, :levels].copy())
    codebooks = [books[part, level].float() for level in range(levels)]
    if settings.start == "random":
        size = levels**-0.5 if settings.standardize else 1.0
        codebooks = [torch.randn_like(book) * size for book in codebooks]
    elif settings.standardize:
        codebooks = unit_codebooks(codes, codebooks)
    return CodeBranch(codes, codebooks, width)
