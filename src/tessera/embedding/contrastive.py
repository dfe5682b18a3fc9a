"""Contrastive training of an embedder: what SCFT of LLMEmb and LRCL, stage I of ReaEmb, share.

Two views of an item, with attributes left out and shuffled, are brought together, among all items of the step.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tessera.artifacts.logs import log
from tessera.data.dataset import load_dataset
from tessera.embedding.embedder import Embedder, load_embedder
from tessera.embedding.recipe import Rows, TrainedRecipe
from tessera.embedding.text import Items, check_texts_differ, embed_rows, item_rows, told_items
from tessera.embedding.views import two_views
from tessera.language.lora import add_lora, drop_out, lora_weights
from tessera.language.probe import INSTEAD, check_alone
from tessera.language.prompts import Attributes, attribute_text
from tessera.language.reasoning import LatentReasoner, ReasoningAttention
from tessera.language.tokens import Frame, length_batches, pad_rows, tokenize
from tessera.objectives.contrastive import LEAST_TEMPERATURE, retrieval_accuracy, soft_contrastive
from tessera.training.losses import Losses, Term, reported
from tessera.training.machine import Machine, seed_step
from tessera.training.phases import FixedSteps, Optimizer, Phase, Position, Update

if TYPE_CHECKING:
    from tessera.language.models import LanguageModel


class ItemBatches:
    """Items of every step: epochs in random order, cut into steps; no item is twice in a step."""

    def __init__(self, items: Items, batch: int, world: int, seed: int) -> None:
        """
        Args:
            items: ids to train on.
            batch: of a step, over all processes; all items, where there are fewer.
            world: processes; they hold equal shares.
            seed: of the order.
        Raises:
            ValueError: fewer than two items a process.
        """
        self.items, self.seed = items, seed
        self.batch = min(batch, len(items)) // world * world
        if self.batch < 2 * world:
            raise ValueError(
                f"{len(items)} items can be trained on (they have what is read, training interactions, and a neighbour "
                f"where pairs are asked for); a step of {world} processes needs at least {2 * world} to tell apart"
            )
        self.steps = len(items) // self.batch
        self._epoch = -1

    def __call__(self, step: int) -> Items:
        """(batch,) ids of the items of a step."""
        epoch, place = divmod(step, self.steps)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng((self.seed, epoch)).permutation(len(self.items))
        return self.items[self._order[place * self.batch : (place + 1) * self.batch]]


class StepBatches(Protocol):
    """What the steps of a training are of."""

    items: Items
    """Ids that are trained on."""

    @property
    def batch(self) -> int:
        """Items, or pairs of them, of a step, over all processes."""

    def __call__(self, step: int) -> Any:
        """What a step is of; a `ContrastiveTraining` knows it."""


class ContrastiveTraining(nn.Module):
    """One step: two views of every item of the batch, read, gathered over processes, and told apart."""

    def __init__(
        self,
        encoder: nn.Module,
        table: Any,
        temperature: float,
        attributes: Mapping[int, Attributes],
        frame: Frame,
        most: int,
        model: LanguageModel,
        machine: Machine,
    ) -> None:
        """
        Args:
            encoder: token ids and mask, both (rows, length), to vectors (rows, width); holds what is trained.
            table: the recipe: a `ContrastiveTable` with `loss` and `training`, or another that the losses know.
            temperature: of the loss, at the start.
            attributes: attributes by item.
            frame: around every view.
            most: tokens of a view with its frame.
            model: for its tokenizer and padding.
            machine: processes.
        """
        super().__init__()
        self.encoder = encoder
        # its logarithm is learned: a step then changes it by a share, be it 3 or 0.05
        self.log_temperature = nn.Parameter(torch.tensor(temperature, device=machine.device).log())
        self.table, self.attributes, self.frame, self.most, self.machine = table, attributes, frame, most, machine
        self.tokenizer, self.pad = model.tokenizer, model.pad_token
        self.texts = self.cut = 0

    @property
    def temperature(self) -> Tensor:
        """() the temperature as it stands."""
        return self.log_temperature.exp()

    def tokens(self, described: Iterable[Attributes]) -> list[list[int]]:
        """Token rows of attributes; what is cut is counted."""
        rows, cut = tokenize(
            [attribute_text(attributes) for attributes in described], self.frame, self.tokenizer, self.most
        )
        self.texts, self.cut = self.texts + len(rows), self.cut + cut
        return rows

    def rows(self, items: Items, step: int) -> list[list[int]]:
        """Token rows of the first views of items, then of their second views."""
        step = 0 if self.table.views == "static" else step + 1
        seed, drop = self.table.training.seed, self.table.drop
        pairs = [two_views(self.attributes[item], drop, seed, step, item) for item in items.tolist()]
        return self.tokens(pair[side] for side in (0, 1) for pair in pairs)

    def encode(self, rows: list[list[int]]) -> Tensor:
        """(rows, width), read in batches of like length, so that little of it is padding."""
        batches = length_batches(np.array([len(row) for row in rows]), self.table.batch_tokens)
        encoded = []
        for batch in batches:
            ids, mask = pad_rows([rows[index] for index in batch], self.pad)
            ids, mask = ids.to(self.machine.device), mask.to(self.machine.device)
            if self.table.recompute:
                encoded.append(checkpoint(self.encoder, ids, mask, use_reentrant=False))
            else:
                encoded.append(self.encoder(ids, mask))
        place = np.argsort(np.concatenate(batches), kind="stable")
        return torch.cat(encoded)[torch.from_numpy(place).to(self.machine.device)]

    @torch.no_grad()
    def hold_temperature(self) -> None:
        """Below the least value of the loss there is no gradient that would lead back."""
        self.log_temperature.clamp_(min=math.log(LEAST_TEMPERATURE))

    def losses(self, items: Any, step: int) -> Losses:
        """The loss of a step over all processes, and what the curve tells beside it.

        Args:
            items: (batch,) ids of the step, over all processes; what `StepBatches` gives.
            step: its number.
        """
        self.hold_temperature()
        mine = self.machine.share(items)
        vectors = self.encode(self.rows(mine, step))
        first, second = (self.machine.gather(half) for half in (vectors[: len(mine)], vectors[len(mine) :]))
        settings = self.table.loss
        loss = soft_contrastive(
            first, second, self.temperature, settings.target_temperature, settings.normalize, settings.targets
        )
        accuracy = retrieval_accuracy(first, second, settings.normalize)
        return {"loss": Term(loss), "temperature": reported(self.temperature), "accuracy": reported(accuracy)}


def trained_items(attributes: Mapping[int, Attributes], data: Path) -> Items:
    """Ids, ascending, of the items that have a text and a training interaction: only those are trained on.

    Raises:
        ValueError: there is none.
    """
    counts = load_dataset(data).train_counts
    seen = np.flatnonzero(counts[1:]) + 1
    items = np.array([item for item in seen.tolist() if item in attributes], np.int64)
    log.info(
        "%s items to train on; %s more have no text, and %s a text but no training interaction",
        f"{len(items):,}", f"{len(seen) - len(items):,}", f"{len(attributes) - len(items):,}",
    )  # fmt: skip
    if not len(items):
        raise ValueError(f"{data}: no item has both a text and a training interaction")
    return items


class ContrastiveRecipe(TrainedRecipe):
    """Adapters of a language model, and what its encoder has besides, trained to tell items apart."""

    settings: Any
    """A `ContrastiveTable` with `loss` and `training`."""
    side: Literal["left", "right"] = "right"
    """Where texts are padded when the catalogue is embedded."""
    INSTEAD: ClassVar[str] = INSTEAD
    """What to use in place of a model that cannot be read so."""
    training: ContrastiveTraining
    thinking: ReasoningAttention | None
    batches: StepBatches

    # ------------------------------------------------------------ what a recipe says

    @abstractmethod
    def frame(self, training: bool = False) -> Frame:
        """What stands around an item's text; `training`: while the embedder learns."""

    @abstractmethod
    def encoder(self, attention: ReasoningAttention | None) -> nn.Module:
        """Token ids and mask, both (rows, length), to vectors (rows, width), by the model as it is now."""

    def attention(self) -> ReasoningAttention | None:
        """A fresh reasoning attention on the model's device, where the encoder has one."""
        return None

    def step(
        self, encoder: nn.Module, attributes: Mapping[int, Attributes], frame: Frame, machine: Machine
    ) -> ContrastiveTraining:
        """What a step does; for the arguments see `ContrastiveTraining`."""
        settings, model = self.settings, self.given.model
        temperature = settings.loss.temperature
        return ContrastiveTraining(encoder, settings, temperature, attributes, frame, self.room, model, machine)

    def step_batches(self, items: Items, world: int) -> StepBatches:
        """What each step is of, by its number; `items` are trained on, by so many processes."""
        return ItemBatches(items, self.settings.training.batch, world, self.settings.training.seed)

    @property
    def room(self) -> int:
        """Most tokens of a text with its frame."""
        return int(min(self.settings.max_tokens, self.given.model.context))

    def check_model(self) -> None:
        """See `Recipe.check_model`: texts are read by the recipe's own encoder."""
        with torch.random.fork_rng(devices=[]):  # which a fresh attention would draw from
            attention = self.attention()
        encoder = self.encoder(attention).eval()
        # others may make their vectors in ways of their own
        plain = encoder.full_passes if type(encoder) is LatentReasoner else None
        # while the embedder learns texts are padded on the right
        for side in dict.fromkeys(["right", self.side]):
            what = f"recipe {self.settings.recipe}"
            check_alone(self.given.model, encoder, what, self.room, side, self.INSTEAD, plain)

    # ------------------------------------------------------------ training

    def begin(self, machine: Machine) -> nn.Module:
        """See `TrainedRecipe.begin`."""
        settings, given, model = self.settings, self.given, self.given.model
        attributes, _ = told_items(given.catalogue, given.prompt, given.captions)
        items = trained_items(attributes, given.data)
        frame = self.frame(training=True)
        check_texts_differ(given.catalogue, self._told(attributes, items, frame))
        model.move(machine.device)
        model.full.requires_grad_(False)
        seed_step(settings.training.seed)
        add_lora(model.tower, settings.lora)
        self.thinking = self.attention()
        encoder = self.encoder(self.thinking)
        self.training = self.step(encoder, attributes, frame, machine)
        drop_out(model.tower)
        self.batches = self.step_batches(items, machine.world)
        trained = sum(parameter.numel() for parameter in self.training.parameters() if parameter.requires_grad)
        log.info(
            "%s: %s trained parameters, %d items a step, on %s",
            settings.recipe, f"{trained:,}", self.batches.batch, machine.device,
        )  # fmt: skip
        return self.training

    def _told(self, attributes: Mapping[int, Attributes], items: Items, frame: Frame) -> Iterator[list[int]]:
        """Token rows of items, tokenized some at a time."""
        for start in range(0, len(items), 64):
            texts = [attribute_text(attributes[item]) for item in items[start : start + 64].tolist()]
            yield from tokenize(texts, frame, self.given.model.tokenizer, self.room)[0]

    def program(self) -> list[Phase]:
        """See `TrainedRecipe.program`."""
        settings = self.settings.training
        return [Phase(self._updates, FixedSteps(settings.steps), {"model": Optimizer(settings)})]

    def _updates(self, _: None, at: Position) -> Iterable[Update]:
        return [Update(partial(self.training.losses, self.batches(at.step), at.step))]

    def trained(self, history: list[dict[str, Any]]) -> Embedder:
        """See `TrainedRecipe.trained`."""
        settings, training = self.settings, self.training
        self.tell_end(history)
        if training.cut:
            log.info("%s of %s texts were cut to %d tokens", f"{training.cut:,}", f"{training.texts:,}", training.most)
        items = len(self.batches.items)
        description = {"recipe": settings.recipe, "settings": settings.model_dump(mode="json"), "items": items}
        temperature = training.temperature.clamp(min=LEAST_TEMPERATURE)
        adapters = lora_weights(self.given.model.tower)
        return Embedder(adapters, settings.lora, self.thinking, temperature, description)

    def tell_end(self, history: list[dict[str, Any]]) -> None:
        """What is to be said of how training went."""
        soft = self.settings.loss.targets != "identity"
        if soft and history and history[-1]["loss"] > 0.98 * math.log(self.batches.batch):
            log.warning(
                "%s: the loss ended at %.3f, that of telling nothing apart: the vectors are so alike that their "
                "soft targets are uniform; try loss: {targets: identity, normalize: true, temperature: 0.1}",
                self.settings.recipe, history[-1]["loss"],
            )  # fmt: skip

    # ------------------------------------------------------------ embedding

    def load(self, merge: bool = True) -> Embedder:
        """Put the given embedder into the model; see `load_embedder`."""
        assert self.given.embedder is not None
        return load_embedder(self.given.model, self.given.embedder, merge, self.attention())

    def rows(self) -> Rows:
        """See `Recipe.rows`."""
        given = self.given
        attributes, items = told_items(given.catalogue, given.prompt, given.captions)
        rows = item_rows(attributes, items, self.frame(), given.model, self.room)
        encoder = self.encoder(self.load().attention).eval()
        return Rows(items, embed_rows(rows, encoder, given.model, self.settings.batch_tokens, self.side))
