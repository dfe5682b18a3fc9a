"""Collaborative-reward reinforcement learning: stage II of ReaEmb (2026).

Noise is added to the thought of an item, and thoughts whose embedding ranks items that co-occur with it before others
are made likelier. Only the reasoning attention learns. The language model is frozen, stage I merged into it, so the
states, keys and values of a text are constants that are made once, and a rollout costs the thoughts and the end token
alone.

With several thoughts the action is all of them: noise is added to the thoughts as they stand, and each thought's
gradient holds the earlier ones constant, as in stage I, unless `through_first_pass` of the start is set.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tessera.artifacts.logs import log
from tessera.data.dataset import load_dataset
from tessera.embedding.contrastive import ItemBatches
from tessera.embedding.cooccurrence import Candidates, build_candidates
from tessera.embedding.embedder import load_embedder, make_attention, reasoning_frame, save_embedder
from tessera.embedding.policy import (
    clipped_share,
    gaussian_divergence,
    gaussian_log_ratio,
    policy_loss,
    token_divergence,
    token_log_probability,
)
from tessera.embedding.prefixes import Prefixes
from tessera.embedding.recipe import Recipe, Rows
from tessera.embedding.rewards import (
    batch_advantages,
    degenerate,
    expected_ranks,
    group_advantages,
    rank_reward,
    softmax_reward,
    supervised_loss,
)
from tessera.embedding.rollouts import embeddings, tail_states
from tessera.embedding.text import Items, Vectors, embed_rows, item_rows, told_items
from tessera.language.prompts import Attributes
from tessera.language.reasoning import LatentReasoner, Prefix, ReasoningAttention
from tessera.language.tokens import chat_frame, plain_frame
from tessera.settings.language import ItemPrompt
from tessera.settings.recipes.crrl import CRRLTable
from tessera.settings.recipes.lrcl import LRCLTable
from tessera.training.engine import Engine
from tessera.training.history import write_history
from tessera.training.losses import Losses, Term, told
from tessera.training.machine import Machine, seed_step
from tessera.training.phases import FixedSteps, Optimizer, Phase, Position, Update

if TYPE_CHECKING:
    from tessera.language.models import LanguageModel

# of generators: what is drawn for a step, beside the order of items
_NOISE, _FRESH, _FIXED = 101, 102, 103

THOUGHT = "<|Thought|>"
INSTRUCTION = "### Instruction:\nSum up the item below.\n\n### Item:\n"
OFFICIAL_TOKENS = 128


@dataclass
class Rollouts:
    """What all updates on a batch of rollouts share: `mine` are this process's items, `batch` all processes'."""

    prefix: Prefix
    """(mine) texts."""
    old: Tensor
    """(mine, 1, thoughts, width) thoughts of the policy that rolled out."""
    noise: Tensor
    """(mine, group, thoughts, width)."""
    advantages: Tensor
    """(batch, group)."""
    counted: Tensor
    """(batch, group) whether the rollout counts in the gradient."""
    before: Tensor | None
    """(batch,) tokens before the thoughts, where the loss is a mean over all tokens."""
    reference: Tensor | None
    """Thoughts, or log likelihoods of tokens, under the reference policy, where the divergence counts."""
    numbers: dict[str, float]
    """What to log of it."""
    log_probability: Tensor | None = None
    """(mine, group, tokens) under the policy that rolled out: the first update makes it, its ratio is exactly 1."""


class CollaborativeTraining:
    """Rollouts, rewards and updates of every step."""

    def __init__(
        self,
        table: CRRLTable,
        reasoner: LatentReasoner,
        prefixes: Prefixes,
        candidates: Candidates,
        machine: Machine,
    ) -> None:
        """
        Args:
            table: the recipe.
            reasoner: the language model, frozen, and the attention that learns.
            prefixes: of `candidates.eligible`, in that order.
            candidates: who learns from whom.
            machine: device and processes.
        """
        self.table, self.reasoner, self.prefixes, self.candidates = table, reasoner, prefixes, candidates
        self.machine = machine
        settings = table.training
        self.batches = ItemBatches(candidates.anchors, settings.batch, machine.world, settings.seed)
        generator = np.random.default_rng((settings.seed, 0, _FIXED))
        self.fixed = candidates.draw(np.arange(len(candidates.anchors)), generator)
        self.reference = deepcopy(reasoner.attention)
        self.std = table.noise_std
        if table.noise_scale == "relative":
            self.std *= self._thought_size()
            log.info("noise: standard deviation %.4g (%g of the thoughts')", self.std, table.noise_std)
        self.tail_tokens = torch.tensor(
            [*[thought_token(reasoner.model)] * reasoner.settings.thoughts, reasoner.model.end_token],
            device=reasoner.model.device,
        )

    # ------------------------------------------------------------ a step

    def updates(self, step: int) -> list[Update]:
        """The optimisation steps on the rollouts of a step."""
        ids = self.batches(step)
        rows = np.searchsorted(self.candidates.anchors, ids)
        if self.table.negatives == "fresh":
            generator = np.random.default_rng((self.table.training.seed, step, _FRESH))
            items, weights = self.candidates.draw(rows, generator)
        else:
            items, weights = self.fixed[0][rows], self.fixed[1][rows]
        ids, items, weights = (self.machine.share(array) for array in (ids, items, weights))
        if self.table.objective == "contrastive":
            return [Update(partial(self._contrast, ids, items, weights))] * self.table.iterations
        rollouts = self._roll_out(step, ids, items, weights)
        update = self._gaussian_update if self.table.policy == "gaussian" else self._token_update
        return [Update(partial(update, rollouts))] * self.table.iterations

    @torch.no_grad()
    def _roll_out(self, step: int, ids: np.ndarray, items: np.ndarray, weights: np.ndarray) -> Rollouts:
        table = self.table
        prefix = self.prefixes.of(self._places(ids))
        old = self._think(prefix)[:, None]
        noise = self._noise(step, old)
        with self.machine.autocast():
            rolled = embeddings(self.reasoner, prefix, old + noise)
        # each distinct item once, however many rollouts are compared with it
        distinct, where = np.unique(items, return_inverse=True)
        others = self.embed(self._places(distinct))[torch.from_numpy(where.reshape(items.shape)).to(rolled.device)]
        similarity = self._compare(rolled, others)
        right = torch.from_numpy(weights).to(similarity)
        reward = rank_reward if table.reward == "rank" else softmax_reward
        rewards = self.machine.gather(reward(similarity, right))
        advantages = group_advantages(rewards) if table.advantage == "group" else batch_advantages(rewards)
        counted = torch.ones_like(rewards, dtype=torch.bool)
        counted[:, 0] = table.noise_free == "rollout"
        published = table.policy == "token" and table.log_probability == "unshifted"
        return Rollouts(
            prefix, old, noise, advantages, counted,
            self.machine.gather(prefix.lengths) if published else None,
            self._reference(prefix, old, noise),
            {
                "reward": float(rewards[:, 1:].mean()),
                "reward_noise_free": float(rewards[:, 0].mean()),
                "degenerate": float(degenerate(rewards).float().mean()),
            },
        )  # fmt: skip

    def _noise(self, step: int, old: Tensor) -> Tensor:
        """(mine, group, thoughts, width); the first rollout has none. Drawn for the batch of all processes."""
        shape = (self.batches.batch, self.table.group, *old.shape[2:])
        drawn = np.random.default_rng((self.table.training.seed, step, _NOISE)).standard_normal(shape, np.float32)
        drawn[:, 0] = 0.0
        return torch.from_numpy(self.machine.share(drawn)).to(old.device) * self.std

    def _reference(self, prefix: Prefix, old: Tensor, noise: Tensor) -> Tensor | None:
        if self.table.kl == 0:
            return None
        live, learned = self.table.reference == "live", self.reasoner.attention
        self.reasoner.attention = learned if live else self.reference
        thoughts = old if live else self._think(prefix)[:, None]
        self.reasoner.attention = learned
        if self.table.policy == "gaussian":
            return thoughts
        with self.machine.autocast():
            return self._likelihood(prefix, thoughts + noise)

    def _gaussian_update(self, rollouts: Rollouts) -> Losses:
        table = self.table
        thoughts = self._think(rollouts.prefix)[:, None]
        log_ratio = self.machine.gather(gaussian_log_ratio(thoughts, rollouts.old, rollouts.noise, self.std))
        loss = policy_loss(log_ratio, rollouts.advantages, rollouts.counted, table.clip_low, table.clip_high)
        divergence = None
        if rollouts.reference is not None:
            divergence = self.machine.gather(gaussian_divergence(thoughts, rollouts.reference, self.std)).mean()
        return self._losses(loss, log_ratio, divergence, rollouts)

    def _token_update(self, rollouts: Rollouts) -> Losses:
        table = self.table
        found = self._likelihood(rollouts.prefix, self._think(rollouts.prefix)[:, None] + rollouts.noise)
        if rollouts.log_probability is None:
            rollouts.log_probability = found.detach()
        log_ratio = self.machine.gather(found - rollouts.log_probability)
        loss = policy_loss(
            log_ratio, rollouts.advantages, rollouts.counted, table.clip_low, table.clip_high, rollouts.before
        )
        divergence = None
        if rollouts.reference is not None:
            each = self.machine.gather(token_divergence(found, rollouts.reference)).mean(-1)
            divergence = each[rollouts.counted].mean()
        return self._losses(loss, log_ratio, divergence, rollouts)

    def _losses(self, loss: Tensor, log_ratio: Tensor, divergence: Tensor | None, rollouts: Rollouts) -> Losses:
        """The losses of an update, and what the curve tells beside them."""
        table = self.table
        with torch.no_grad():
            ratios = log_ratio if log_ratio.ndim == 3 else log_ratio[..., None]
            clipped = clipped_share(ratios, rollouts.advantages[..., None], table.clip_low, table.clip_high)
            numbers = {
                **rollouts.numbers,
                "ratio_change": float((ratios.exp() - 1).abs()[rollouts.counted].mean()),
                "clipped": float(clipped[rollouts.counted].float().mean()),
            }
        losses = {"policy": Term(loss)}
        if divergence is not None:
            losses["divergence"] = Term(table.kl * divergence)
            numbers["kl"] = float(divergence.detach())
        return losses | {name: told(number) for name, number in numbers.items()}

    def _contrast(self, ids: np.ndarray, items: np.ndarray, weights: np.ndarray) -> Losses:
        """The control: the same pairs, a supervised loss, and the gradient through the language model's tail pass."""
        distinct, where = np.unique(np.concatenate([ids[:, None], items], axis=1), return_inverse=True)
        vectors = self.embed(self._places(distinct))
        vectors = vectors[torch.from_numpy(where.reshape(len(ids), -1)).to(vectors.device)]
        similarity = self._compare(vectors[:, :1], vectors[:, 1:])
        right = torch.from_numpy(weights).to(similarity)
        loss = self.machine.gather(supervised_loss(similarity[:, 0], right)).mean()
        rewards = self.machine.gather(rank_reward(similarity.detach(), right))
        return {"loss": Term(loss), "reward_noise_free": told(rewards.mean())}

    # ------------------------------------------------------------ embeddings

    def embed(self, places: np.ndarray) -> Tensor:
        """(n, width) embeddings of prefixes without noise, with the attention as it is."""
        found, batches = [], self.prefixes.batches(places)
        for batch in batches:
            prefix = self.prefixes.of(places[batch])
            thoughts = self._think(prefix)[:, None]
            with self.machine.autocast():
                found.append(embeddings(self.reasoner, prefix, thoughts)[:, 0])
        order = np.argsort(np.concatenate(batches), kind="stable")
        vectors = torch.cat(found)
        return vectors[torch.from_numpy(order).to(vectors.device)]

    @torch.no_grad()
    def positive_rank(self) -> float:
        """Mean rank, from 0, of the positives of all items among their fixed candidates, without noise."""
        places = np.arange(len(self.prefixes))
        world = self.machine.world
        # every process holds as many; what is embedded twice is cut off
        padded = np.resize(places, -(-len(places) // world) * world)
        vectors = self.machine.gather(self.embed(self.machine.share(padded)))[: len(places)]
        ranks = []
        size = max(1, 2**24 // (self.candidates.size * vectors.shape[1]))
        for start in range(0, len(self.candidates.anchors), size):
            block = slice(start, start + size)
            own = vectors[torch.from_numpy(self._places(self.candidates.anchors[block])).to(vectors.device)]
            others = vectors[torch.from_numpy(self._places(self.fixed[0][block])).to(vectors.device)]
            found = expected_ranks(self._compare(own[:, None], others))[:, 0]
            ranks.append((found * torch.from_numpy(self.fixed[1][block]).to(found)).sum(-1))
        return float(torch.cat(ranks).double().mean())

    def _places(self, items: np.ndarray) -> np.ndarray:
        """Where the prefixes of items are."""
        return np.searchsorted(self.candidates.eligible, items)

    def _think(self, prefix: Prefix) -> Tensor:
        """(batch, thoughts, width); one thought is made in float32: ratios are of differences of thoughts."""
        alone = self.reasoner.settings.thoughts == 1
        context: AbstractContextManager[Any] = (
            torch.autocast(prefix.states.device.type, enabled=False) if alone else self.machine.autocast()
        )
        with context:
            return self.reasoner.think(prefix).float()

    def _compare(self, own: Tensor, others: Tensor) -> Tensor:
        """(items, group, candidates) similarities of (items, group, width) and (items, candidates, width)."""
        with torch.autocast(own.device.type, enabled=False):
            if self.table.similarity == "cosine":
                own, others = F.normalize(own, dim=-1), F.normalize(others, dim=-1)
            return own @ others.mT

    def _likelihood(self, prefix: Prefix, thoughts: Tensor) -> Tensor:
        """(items, group, tokens) log likelihoods of what thoughts (items, group, thoughts, width) can move."""
        states = tail_states(self.reasoner, prefix, thoughts)
        tokens = self.tail_tokens
        if self.table.log_probability == "shifted":
            states, tokens = states[:, :, :-1], tokens[1:]
        return token_log_probability(self.reasoner.model.logits(states), tokens)

    @torch.no_grad()
    def _thought_size(self) -> float:
        """Root mean square of the thoughts of all items that learn."""
        total, count = 0.0, 0
        places = self._places(self.candidates.anchors)
        for batch in self.prefixes.batches(places):
            thoughts = self._think(self.prefixes.of(places[batch])).double()
            total, count = total + float(thoughts.square().sum()), count + thoughts.numel()
        return float((total / count) ** 0.5)


def thought_token(model: LanguageModel) -> int:
    """The token that a thought stands for where its likelihood is asked: `<|Thought|>`, if the tokenizer has it.

    The published code adds that token, which takes the first row after the tokenizer's; a model without a spare row
    takes padding.
    """
    known = model.tokenizer.get_vocab()
    rows = int(model.full.get_output_embeddings().weight.shape[0])  # type: ignore[operator]
    return int(known.get(THOUGHT, len(known) if len(known) < rows else model.pad_token))


# ---------------------------------------------------------------- stages


def _token_rows(
    table: CRRLTable, start: LRCLTable, prompt: ItemPrompt, model: LanguageModel, told: Mapping[int, Attributes],
    items: Items, training: bool,
) -> list[list[int]]:  # fmt: skip
    """What is read of each item.

    `by_stage`, as published: another request, no domain sentence, and the last 128 tokens alone, so the head may be
    lost; for export neither chat template nor end token.
    """
    room = start.thoughts + 1
    most = min(start.max_tokens, model.context) - room
    if table.prompts == "one":
        return item_rows(told, items, reasoning_frame(model, prompt), model, most)
    frame = chat_frame(model, INSTRUCTION) if training else plain_frame(model, INSTRUCTION, end=False)
    rows = item_rows(told, items, frame, model, most)
    return [row[-(OFFICIAL_TOKENS - room) :] for row in rows]


def _check_thoughts(start: LRCLTable) -> None:
    if start.thoughts == 0:
        raise ValueError("crrl: its start has no thoughts (thoughts: 0), so there is nothing to make likelier")


def train_crrl(
    table: CRRLTable,
    start: LRCLTable,
    prompt: ItemPrompt,
    model: LanguageModel,
    catalogue: Path,
    captions: Mapping[str, Path],
    data: Path,
    embedder: Path | None,
    output: Path,
    state: Path,
    machine: Machine,
) -> None:
    """Train the reasoning attention and write `output` (model.safetensors), model.json and history.jsonl beside it.

    What is written holds stage I's adapters too: it embeds by itself.

    Args:
        table: the recipe.
        start: settings of stage I; defaults where there is none.
        prompt: what is told of an item.
        model: the language model; it is changed.
        catalogue: items.parquet.
        captions: name -> captions Parquet.
        data: folder of the prepared dataset.
        embedder: weights of stage I; None starts with a random attention on the model as it is.
        output: path of the weights.
        state: folder of the resumable state.
        machine: device and processes.
    Raises:
        ValueError: there is nothing to learn from, no thought, or the loss is no longer a number.
    """
    _check_thoughts(start)
    settings = table.training
    told, described = told_items(catalogue, prompt, captions)
    candidates = build_candidates(load_dataset(data), described, table)
    model.move(machine.device)
    model.full.requires_grad_(False).eval()
    adapters: Mapping[str, Tensor] = {}
    lora = None
    attention: ReasoningAttention | None
    if embedder is None:
        seed_step(settings.seed)
        attention = make_attention(model, start)
    else:
        loaded = load_embedder(model, embedder, merge=True)
        attention, adapters, lora = loaded.attention, loaded.adapters, loaded.lora
    reasoner = LatentReasoner(model, attention, start).eval()
    assert attention is not None
    rows = _token_rows(table, start, prompt, model, told, candidates.eligible, training=True)
    prefixes = Prefixes(reasoner, rows, table.cache_gib, start.batch_tokens, machine)
    training = CollaborativeTraining(table, reasoner, prefixes, candidates, machine)
    log.info(
        "crrl: %s items learn, %d a step, %d rollouts each, %s trained parameters, on %s",
        f"{len(candidates.anchors):,}", training.batches.batch, table.group,
        f"{sum(p.numel() for p in attention.parameters()):,}", machine.device,
    )  # fmt: skip
    before = training.positive_rank()

    def updates(_: None, at: Position) -> list[Update]:
        return training.updates(at.step)

    program = [Phase(updates, FixedSteps(settings.steps), {"model": Optimizer(settings)})]
    engine = Engine(attention, program, settings, settings.seed, state, machine, "crrl")
    history = engine.fit()
    after = training.positive_rank()
    log.info("crrl: mean rank of the positives among %d candidates %.3f -> %.3f", table.candidates, before, after)
    if not machine.first:
        return
    if history:
        history[0]["positive_rank_before"] = before
        history[-1]["positive_rank_after"] = after
    description = {
        "recipe": table.recipe, "settings": table.model_dump(mode="json"), "start": start.model_dump(mode="json"),
        "items": len(candidates.anchors), "noise_std": training.std,
        "positive_rank_before": before, "positive_rank_after": after,
    }  # fmt: skip
    write_history(output.with_name("history.jsonl"), history)
    save_embedder(output, adapters, lora, attention, None, description)
    engine.clear()


def embed_crrl(
    table: CRRLTable,
    start: LRCLTable,
    prompt: ItemPrompt,
    model: LanguageModel,
    catalogue: Path,
    captions: Mapping[str, Path],
    embedder: Path,
) -> tuple[Items, Vectors]:
    """Embed every item that has a text; the model is changed.

    Returns:
        (n,) ids, ascending, and (n, width) vectors.
    Raises:
        ValueError: no item has a text, or the embedder was trained on another model.
    """
    _check_thoughts(start)
    told, items = told_items(catalogue, prompt, captions)
    rows = _token_rows(table, start, prompt, model, told, items, training=False)
    reasoner = LatentReasoner(model, load_embedder(model, embedder, merge=True).attention, start).eval()
    end = table.prompts == "one"

    def encode(ids: Tensor, mask: Tensor) -> Tensor:
        prefix = reasoner.read(ids, mask)
        return embeddings(reasoner, prefix, reasoner.think(prefix)[:, None], end)[:, 0]

    return items, embed_rows(rows, encode, model, start.batch_tokens)


class CRRLRecipe(Recipe):
    """Stage II of ReaEmb."""

    def rows(self) -> Rows:
        """See `Recipe.rows`."""
        given = self.given
        assert given.embedder is not None
        return Rows(
            *embed_crrl(
                self.settings, self._start, given.prompt, given.model, given.catalogue, given.captions, given.embedder
            )
        )

    def train(self, data: Path, output: Path, state: Path, machine: Machine) -> None:
        """See `Recipe.train`."""
        given = self.given
        train_crrl(
            self.settings, self._start, given.prompt, given.model, given.catalogue, given.captions, data,
            given.embedder, output, state, machine,
        )  # fmt: skip

    @property
    def _start(self) -> LRCLTable:
        assert isinstance(self.given.start, LRCLTable)
        return self.given.start
