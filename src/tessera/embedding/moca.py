"""MoCa (arXiv 2506.23115): a causal model learns to see both ways by giving back what is hidden, and then to embed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from tessera.artifacts.logs import log
from tessera.content.reading import read_content
from tessera.data.dataset import load_dataset
from tessera.embedding.embedder import Embedder, load_embedder
from tessera.embedding.item_content import ItemContent, Part, Row
from tessera.embedding.reader import RowReader
from tessera.embedding.recipe import Items, Rows, TrainedRecipe, Vectors
from tessera.embedding.reconstruction import Reconstruction
from tessera.embedding.sharded import RowShard, sharded_rows
from tessera.embedding.step_batches import CostBuckets, PairBatches, Pairs, near
from tessera.embedding.text import LOOK, LOOK_AT_PICTURES, check_texts_differ
from tessera.language.lora import add_lora, drop_out, lora_weights
from tessera.language.models import LanguageModelError
from tessera.language.probe import DECODERS, check_alone, check_both_ways
from tessera.language.questions import Pixels, read_pixels, without_pixels
from tessera.language.states import pool
from tessera.objectives.contrastive import retrieval_accuracy
from tessera.objectives.in_batch import in_batch
from tessera.settings.recipes.moca import MoCaTable
from tessera.training.losses import Losses, Term, reported
from tessera.training.machine import Machine, seed_step
from tessera.training.phases import FixedSteps, Optimizer, Phase, Position, Update
from tessera.training.shards import groups

if TYPE_CHECKING:
    from tessera.language.models import LanguageModel


class PairTraining(nn.Module):
    """One step of the second phase: pairs are read, gathered over processes, and each told from the others' targets."""

    def __init__(self, reader: RowReader, content: ItemContent, table: MoCaTable, machine: Machine) -> None:
        super().__init__()
        self.reader, self.content, self.table, self.machine = reader, content, table, machine

    def losses(self, pairs: Pairs, step: int) -> Losses:
        """The loss over the pairs of all processes, and what the curve tells beside it."""
        machine, content = self.machine, self.content
        sides = np.concatenate([pairs.queries[:, None], pairs.targets[:, None], pairs.negatives], 1)
        mine = machine.share(sides)
        parts = [
            content.view(item, self.table.drop, np.random.default_rng((self.table.training.seed, 5, step, side, item)))
            for row in mine.tolist() for side, item in enumerate(row) if item
        ]  # fmt: skip
        rows = content.rows(parts)
        read = self.reader(rows)
        vectors = read.new_zeros(mine.size, read.shape[1])
        vectors[torch.from_numpy(np.flatnonzero(mine)).to(read.device)] = read
        vectors = machine.gather(vectors.view(*mine.shape, -1))
        contents = [[content.key(item) if item else 0 for item in row] for row in mine.tolist()]
        keys = machine.gather(torch.tensor(contents, device=read.device))
        queries, targets = vectors[:, 0], vectors[:, 1]
        same, absent = same_content(keys[:, :2]), torch.from_numpy(pairs.negatives == 0).to(read.device)
        # a negative that says what its query or the target says is none
        absent |= (keys[:, 2:] == keys[:, :1]) | (keys[:, 2:] == keys[:, 1:2])
        loss = in_batch(queries, targets, self.table.temperature, same, vectors[:, 2:], absent)
        tokens = machine.total(torch.tensor(float(sum(len(row.ids) for row in rows)), device=read.device))
        accuracy = retrieval_accuracy(queries, targets, True, same)
        return {"loss": Term(loss), "accuracy": reported(accuracy), "tokens": reported(tokens)}


def same_content(keys: Tensor) -> Tensor:
    """(batch, batch) true where target j is no negative of query i: it says the same as the query or its target.

    Args:
        keys: (batch, 2) what queries and targets say, as numbers.
    """
    queries, targets = keys.T
    same: Tensor = (targets[None] == targets[:, None]) | (targets[None] == queries[:, None])
    return same


class MoCaRecipe(TrainedRecipe):
    """Phases `continual` and `contrastive` over one model, and its table."""

    settings: MoCaTable
    content: ItemContent
    continual: Reconstruction | None
    contrastive: PairTraining
    buckets: CostBuckets
    pairs: PairBatches
    learned: Items

    @classmethod
    def open_model(cls, table: Any, model: Any, folder: Any) -> Any:
        """A decoder under an attention that takes a mask of its own.

        Raises:
            LanguageModelError: the model is an encoder, or its attention takes none.
        """
        opened = super().open_model(table, model, folder)
        if opened.kind == "encoder":
            raise LanguageModelError("recipe moca reads with decoders and vision-language models; this is an encoder")
        return opened

    def check_model(self) -> None:
        """See `Recipe.check_model`: as texts are read, and whether the model sees both ways where it shall."""
        settings, model = self.settings, self.given.model
        bidirectional, what = settings.attention == "bidirectional", f"recipe {settings.recipe}"

        def read(ids: Tensor, mask: Tensor) -> Tensor:
            return read_content(model, ids, mask, [], bidirectional).states

        def encode(ids: Tensor, mask: Tensor) -> Tensor:
            return pool(read(ids, mask), mask, settings.pooling)

        check_alone(model, encode, what, min(settings.max_tokens, model.context), instead=f"use {DECODERS}")
        if bidirectional:
            check_both_ways(model, read, what, f"set attention: causal, or use {DECODERS}")

    def _reader(self) -> RowReader:
        settings = self.settings
        bidirectional = settings.attention == "bidirectional"
        return RowReader(
            self.given.model, bidirectional, settings.pooling, settings.batch_tokens, settings.recompute,
            settings.states,
        )  # fmt: skip

    def _content(self) -> ItemContent:
        settings, given = self.settings, self.given
        return ItemContent(
            given.model, given.prompt, given.catalogue, given.captions, settings.shown, settings.max_tokens,
            settings.max_pixels,
        )  # fmt: skip

    # ------------------------------------------------------------ training

    def begin(self, machine: Machine) -> nn.Module:
        """See `TrainedRecipe.begin`."""
        settings, model = self.settings, self.given.model
        model.move(machine.device)
        self.content = self._content()
        dataset = load_dataset(self.given.data)
        self.learned = self._learned(dataset.train_counts)
        advice = LOOK_AT_PICTURES if settings.reads_pictures("") else LOOK
        check_texts_differ(self.given.catalogue, map(self.content.read, self.learned.tolist()), advice)
        seed_step(settings.training.seed)
        reader = self._reader()
        trained = nn.ModuleDict({"reader": reader})
        seed, world = settings.training.seed, machine.world
        self.continual = None
        if settings.continual.steps:
            self.continual = Reconstruction(reader, self.content, settings.continual, seed, machine)
            given = self.continual.given_back(self.learned)
            costs = self.content.costs(given.tolist())
            self.buckets = CostBuckets(given, costs, settings.continual.budget, world, seed)
            trained["continual"] = self.continual
        # after the layer was copied: its copy has no adapters
        self._free(model)
        self.contrastive = PairTraining(reader, self.content, settings, machine)
        if settings.training.steps:
            offsets, items = dataset.train_histories()
            counts = near(offsets, items, dataset.n_items + 1, settings.pairs.window)
            weights = {"views": settings.pairs.views, "together": settings.pairs.together}
            self.pairs = PairBatches(
                self.learned, weights, counts, settings.training.batch, settings.training.steps, world, seed,
                self.content.attributes, settings.hard_negatives,
            )  # fmt: skip
        count = sum(parameter.numel() for parameter in trained.parameters() if parameter.requires_grad)
        log.info("%s: %s trained parameters, on %s", settings.recipe, f"{count:,}", machine.device)
        return trained

    def _learned(self, counts: np.ndarray) -> Items:
        """Ids, ascending, of the items that can be read and have a training interaction: only those are trained on."""
        content = self.content
        met = [item for item in content.items if counts[item] > 0]
        # a picture that is named may be one that cannot be read, and without a text nothing is left of its item
        read = [item for item in met if content.attributes.get(item) or content.pixels(item) is not None]
        learned = np.array(read, np.int64)
        log.info(
            "%s items to train on; %s more can be read, and have no training interaction",
            f"{len(learned):,}", f"{len(self.content.items) - len(learned):,}",
        )  # fmt: skip
        if not len(learned):
            raise ValueError(f"{self.given.data}: no item can both be read and has a training interaction")
        return learned

    def _free(self, model: LanguageModel) -> None:
        """Let learn what shall: adapters, or all weights that read what is shown."""
        settings = self.settings
        if settings.lora is not None:
            model.full.requires_grad_(False)
            add_lora(model.tower, settings.lora)
            drop_out(model.tower)
            return
        model.full.requires_grad_(True)
        if settings.shown == "text":
            language = {id(weight) for weight in model.tower.parameters()}
            if (head := self._head(model)) is not None:
                language.add(id(head))
            for weight in model.full.parameters():
                weight.requires_grad_(id(weight) in language)

    @staticmethod
    def _head(model: LanguageModel) -> nn.Parameter | None:
        head: Any = model.full.get_output_embeddings()  # type: ignore[operator]
        return None if head is None else head.weight

    def program(self) -> list[Phase]:
        """See `TrainedRecipe.program`."""
        settings, phases = self.settings, list[Phase]()
        if self.continual is not None:
            own = settings.continual
            phases.append(Phase(self._hide, FixedSteps(own.steps), {"model": Optimizer(own)}, name="continual"))
        if settings.training.steps:
            reader = [weight for weight in self.contrastive.parameters() if weight.requires_grad]
            moved = {"model": Optimizer(settings.training, reader)}
            phases.append(Phase(self._contrast, FixedSteps(settings.training.steps), moved, name="contrastive"))
        return phases

    def _hide(self, _: None, at: Position) -> Iterable[Update]:
        assert self.continual is not None
        return [Update(partial(self.continual.losses, self.buckets(at.step), at.step))]

    def _contrast(self, _: None, at: Position) -> Iterable[Update]:
        return [Update(partial(self.contrastive.losses, self.pairs(at.step), at.step))]

    def trained(self, history: list[dict[str, Any]]) -> Embedder:
        """See `TrainedRecipe.trained`."""
        settings, model, content = self.settings, self.given.model, self.content
        if content.cut:
            log.info("%s of %s texts were cut to %d tokens", f"{content.cut:,}", f"{content.texts:,}", content.most)
        if content.broken:
            log.info("%s pictures cannot be read", f"{len(content.broken):,}")
        description = {
            "recipe": settings.recipe, "settings": settings.model_dump(mode="json"), "items": len(self.learned),
        }  # fmt: skip
        if settings.lora is not None:
            return Embedder(lora_weights(model.tower), settings.lora, None, settings.temperature, description)
        return Embedder({}, None, None, settings.temperature, description, self._weights(model))

    def _weights(self, model: LanguageModel) -> dict[str, Tensor]:
        """The weights that read, by name."""
        head, part = self._head(model), model.tower if self.settings.shown == "text" else model.full
        read = {id(weight) for weight in part.parameters() if weight is not head}
        # the head is the embeddings under another name, where they are tied
        embedding: Any = model.full.get_input_embeddings()  # type: ignore[operator]
        read.add(id(embedding.weight))
        return {name: weight for name, weight in model.full.named_parameters() if id(weight) in read}

    # ------------------------------------------------------------ embedding

    def rows(self) -> Rows:
        """See `Recipe.rows`."""
        settings, given = self.settings, self.given
        assert given.embedder is not None
        content = self._content()
        load_embedder(given.model, given.embedder, merge=True)
        reader = self._reader().eval()

        @torch.no_grad()
        def make(items: Sequence[int]) -> RowShard:
            kept: list[int] = []
            vectors = [np.empty((0, reader.width), np.float32)]
            for group in groups(items, settings.batch):
                read, made = self._read(content, reader, group)
                kept += read
                vectors.append(made)
            broken = len(content.broken.intersection(items).difference(kept))  # others are read by their texts
            return RowShard(np.array(kept, np.int64), np.concatenate(vectors), broken)

        items, made = sharded_rows(content.items, settings, settings.batch, reader.width, given.state, make)
        if not len(items):
            raise ValueError(f"{given.catalogue}: no picture can be read")
        return Rows(items, made)

    @staticmethod
    def _read(content: ItemContent, reader: RowReader, group: Sequence[int]) -> tuple[list[int], Vectors]:
        """Items of a group of which anything can be read, and their vectors; a batch at a time has pixels."""
        pictures = [content.picture(item) for item in group]
        parts = [
            Part(content.attributes.get(item, []), None if picture is None else without_pixels(content.model, picture))
            for item, picture in zip(group, pictures, strict=True)
        ]
        rows = content.rows(parts)
        read = [number for number, row in enumerate(rows) if row.ids]
        vectors = np.empty((len(read), reader.width), np.float32)
        for batch in reader.batches([rows[number] for number in read]):
            numbers = [read[place] for place in batch]
            shown = [picture for number in numbers if (picture := pictures[number]) is not None]
            pixels: Sequence[Pixels | None] = read_pixels(content.model, shown) or [None] * len(numbers)
            some = [Row(rows[number].ids, seen) for number, seen in zip(numbers, pixels, strict=True)]
            vectors[batch] = reader(some).float().cpu().numpy()
        return [group[number] for number in read], vectors
