"""Contrastive training of an embedder: SCFT of LLMEmb, and LRCL, stage I of ReaEmb.

Two views of an item, with attributes left out and shuffled, are brought together, among all items of the step. SCFT
pools the states of the text; LRCL lets the model think first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tessera.artifacts.logs import log
from tessera.data.dataset import load_dataset
from tessera.embedding.embedder import load_embedder, make_attention, reasoning_frame, save_embedder, scft_frame
from tessera.embedding.recipe import Recipe, Rows
from tessera.embedding.text import Items, Vectors, embed_rows, item_rows, told_items
from tessera.embedding.views import two_views
from tessera.language.lora import add_lora, drop_out, lora_weights
from tessera.language.prompts import Attributes, attribute_text
from tessera.language.reasoning import LatentReasoner, ReasoningAttention
from tessera.language.states import pool, read_states
from tessera.language.tokens import Frame, length_batches, pad_rows, tokenize
from tessera.objectives.contrastive import LEAST_TEMPERATURE, retrieval_accuracy, soft_contrastive
from tessera.settings.language import ItemPrompt
from tessera.settings.recipes.lrcl import LRCLTable
from tessera.settings.recipes.scft import SCFTTable
from tessera.training.engine import Engine
from tessera.training.history import write_history
from tessera.training.losses import Losses, Term, told
from tessera.training.machine import Machine, seed_step
from tessera.training.phases import FixedSteps, Optimizer, Phase, Position, Update

if TYPE_CHECKING:
    from tessera.language.models import LanguageModel

Table = SCFTTable | LRCLTable


class Pooler(nn.Module):
    """SCFT's encoder: pooled states of the text."""

    def __init__(self, model: LanguageModel, table: SCFTTable) -> None:
        super().__init__()
        self.model, self.tower, self.table = model, model.tower, table

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(batch, width) of token ids and mask (batch, length)."""
        return pool(read_states(self.model, ids, mask, which=self.table.states), mask, self.table.pooling)


def make_encoder(model: LanguageModel, attention: ReasoningAttention | None, table: Table) -> Pooler | LatentReasoner:
    """What turns token rows into vectors."""
    if isinstance(table, SCFTTable):
        return Pooler(model, table)
    return LatentReasoner(model, attention, table)


def _frame_and_room(model: LanguageModel, prompt: ItemPrompt, table: Table, training: bool) -> tuple[Frame, int]:
    """The frame around an item's text, and the most tokens of both, thoughts and end token left out."""
    most = min(table.max_tokens, model.context)
    if isinstance(table, SCFTTable):
        return scft_frame(model, prompt), most
    sentence = not (training and table.prompts == "by_stage")
    return reasoning_frame(model, prompt, sentence), most - table.thoughts - 1


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
                f"{len(items)} items have a text and a training interaction; a step of {world} processes needs at "
                f"least {2 * world} to tell from each other"
            )
        self.steps = len(items) // self.batch

    def __call__(self, step: int) -> Items:
        """(batch,) ids of the items of a step."""
        epoch, place = divmod(step, self.steps)
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.items))
        return self.items[order[place * self.batch : (place + 1) * self.batch]]


class ContrastiveTraining(nn.Module):
    """One step: two views of every item of the batch, read, gathered over processes, and told apart."""

    def __init__(
        self,
        encoder: Pooler | LatentReasoner,
        table: Table,
        told: Mapping[int, Attributes],
        frame: Frame,
        most: int,
        model: LanguageModel,
        machine: Machine,
    ) -> None:
        """
        Args:
            encoder: holds the adapters, and for LRCL the attention.
            table: the recipe.
            told: attributes by item.
            frame: around every view.
            most: tokens of a view with its frame.
            model: for its tokenizer and padding.
            machine: processes.
        """
        super().__init__()
        self.encoder = encoder
        # its logarithm is learned: a step then changes it by a share, be it 3 or 0.05
        self.log_temperature = nn.Parameter(torch.tensor(table.loss.temperature, device=machine.device).log())
        self.table, self.told, self.frame, self.most, self.machine = table, told, frame, most, machine
        self.tokenizer, self.pad = model.tokenizer, model.pad_token
        self.texts = self.cut = 0

    @property
    def temperature(self) -> Tensor:
        """() the temperature as it stands."""
        return self.log_temperature.exp()

    def rows(self, items: Items, step: int) -> list[list[int]]:
        """Token rows of the first views of items, then of their second views."""
        step = 0 if self.table.views == "static" else step + 1
        seed, drop = self.table.training.seed, self.table.drop
        pairs = [two_views(self.told[item], drop, seed, step, item) for item in items.tolist()]
        texts = [attribute_text(pair[side]) for side in (0, 1) for pair in pairs]
        rows, cut = tokenize(texts, self.frame, self.tokenizer, self.most)
        self.texts, self.cut = self.texts + len(rows), self.cut + cut
        return rows

    def encode(self, rows: list[list[int]]) -> Tensor:
        """(rows, width), read in batches of like length, so that little of it is padding."""
        batches = length_batches(np.array([len(row) for row in rows]), self.table.batch_tokens)
        found = []
        for batch in batches:
            ids, mask = pad_rows([rows[index] for index in batch], self.pad)
            ids, mask = ids.to(self.machine.device), mask.to(self.machine.device)
            if self.table.recompute:
                found.append(checkpoint(self.encoder, ids, mask, use_reentrant=False))
            else:
                found.append(self.encoder(ids, mask))
        place = np.argsort(np.concatenate(batches), kind="stable")
        return torch.cat(found)[torch.from_numpy(place).to(self.machine.device)]

    def losses(self, items: Items, step: int) -> Losses:
        """The loss of a step over all processes, and what the curve tells beside it.

        Args:
            items: of the step, over all processes.
            step: its number.
        """
        with torch.no_grad():
            # below the least value of the loss there is no gradient that would lead back
            self.log_temperature.clamp_(min=math.log(LEAST_TEMPERATURE))
        mine = self.machine.share(items)
        vectors = self.encode(self.rows(mine, step))
        first, second = (self.machine.gather(half) for half in (vectors[: len(mine)], vectors[len(mine) :]))
        settings = self.table.loss
        loss = soft_contrastive(
            first, second, self.temperature, settings.target_temperature, settings.normalize, settings.targets
        )
        accuracy = retrieval_accuracy(first, second, settings.normalize)
        return {"loss": Term(loss), "temperature": told(self.temperature), "accuracy": told(accuracy)}


def trained_items(told: Mapping[int, Attributes], data: Path) -> Items:
    """Ids, ascending, of the items that have a text and a training interaction: only those are trained on.

    Raises:
        ValueError: there is none.
    """
    counts = load_dataset(data).train_counts
    seen = np.flatnonzero(counts[1:]) + 1
    items = np.array([item for item in seen.tolist() if item in told], np.int64)
    log.info(
        "%s items to train on; %s more have no text, and %s a text but no training interaction",
        f"{len(items):,}", f"{len(seen) - len(items):,}", f"{len(told) - len(items):,}",
    )  # fmt: skip
    if not len(items):
        raise ValueError(f"{data}: no item has both a text and a training interaction")
    return items


def train_contrastive(
    table: Table,
    prompt: ItemPrompt,
    model: LanguageModel,
    catalogue: Path,
    captions: Mapping[str, Path],
    data: Path,
    output: Path,
    state: Path,
    machine: Machine,
) -> None:
    """Train an embedder and write `output` (model.safetensors), model.json and history.jsonl beside it.

    Args:
        table: the recipe.
        prompt: what is told of an item.
        model: the language model; it is changed.
        catalogue: items.parquet.
        captions: name -> captions Parquet.
        data: folder of the prepared dataset.
        output: path of the weights.
        state: folder of the resumable state.
        machine: device and processes.
    Raises:
        ValueError: there is nothing to train on, or the loss is no longer a number.
    """
    told, _ = told_items(catalogue, prompt, captions)
    items = trained_items(told, data)
    settings = table.training
    model.move(machine.device)
    model.full.requires_grad_(False)
    seed_step(settings.seed)
    add_lora(model.tower, table.lora)
    attention = make_attention(model, table) if isinstance(table, LRCLTable) else None
    encoder = make_encoder(model, attention, table)
    frame, most = _frame_and_room(model, prompt, table, training=True)
    training = ContrastiveTraining(encoder, table, told, frame, most, model, machine)
    drop_out(model.tower)
    batches = ItemBatches(items, settings.batch, machine.world, settings.seed)

    def updates(_: None, at: Position) -> Iterable[Update]:
        return [Update(partial(training.losses, batches(at.step), at.step))]

    trained = sum(parameter.numel() for parameter in training.parameters() if parameter.requires_grad)
    log.info(
        "%s: %s trained parameters, %d items a step, on %s",
        table.recipe, f"{trained:,}", batches.batch, machine.device,
    )  # fmt: skip
    program = [Phase(updates, FixedSteps(settings.steps), {"model": Optimizer(settings)})]
    engine = Engine(training, program, settings, settings.seed, state, machine, table.recipe)
    history = engine.fit()
    soft = table.loss.targets != "identity"
    if soft and history and history[-1]["loss"] > 0.98 * math.log(batches.batch):
        log.warning(
            "%s: the loss ended at %.3f, that of telling nothing apart: the vectors are so alike that their "
            "soft targets are uniform; try loss: {targets: identity, normalize: true, temperature: 0.1}",
            table.recipe, history[-1]["loss"],
        )  # fmt: skip
    if training.cut:
        log.info("%s of %s views were cut to %d tokens", f"{training.cut:,}", f"{training.texts:,}", most)
    if not machine.first:
        return
    description = {"recipe": table.recipe, "settings": table.model_dump(mode="json"), "items": len(items)}
    write_history(output.with_name("history.jsonl"), history)
    save_embedder(
        output,
        lora_weights(model.tower),
        table.lora,
        attention,
        training.temperature.clamp(min=LEAST_TEMPERATURE),
        description,
    )
    engine.clear()


def embed_contrastive(
    table: Table,
    prompt: ItemPrompt,
    model: LanguageModel,
    catalogue: Path,
    captions: Mapping[str, Path],
    embedder: Path,
) -> tuple[Items, Vectors]:
    """Embed every item that has a text with a trained embedder; the model is changed.

    Returns:
        (n,) ids, ascending, and (n, width) vectors.
    Raises:
        ValueError: no item has a text, or the embedder was trained on another model.
    """
    told, items = told_items(catalogue, prompt, captions)
    frame, most = _frame_and_room(model, prompt, table, training=False)
    rows = item_rows(told, items, frame, model, most)
    encoder = make_encoder(model, load_embedder(model, embedder, merge=True).attention, table).eval()
    # the published tokenizer pads on the left when it exports, and positions count the padding then
    side: Literal["left", "right"] = "left" if isinstance(table, LRCLTable) and table.positions == "padded" else "right"
    return items, embed_rows(rows, encoder, model, table.batch_tokens, side)


class ContrastiveRecipe(Recipe):
    """SCFT and LRCL."""

    def rows(self) -> Rows:
        """See `Recipe.rows`."""
        given = self.given
        assert given.embedder is not None
        items, vectors = embed_contrastive(
            self.settings, given.prompt, given.model, given.catalogue, given.captions, given.embedder
        )
        return Rows(items, vectors)

    def train(self, data: Path, output: Path, state: Path, machine: Machine) -> None:
        """See `Recipe.train`."""
        given = self.given
        train_contrastive(
            self.settings, given.prompt, given.model, given.catalogue, given.captions, data, output, state, machine
        )
