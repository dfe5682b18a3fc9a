"""Collaborative-reward reinforcement learning: stage II of ReaEmb (2026).

Noise is added to the thought of an item, and thoughts whose embedding ranks items that co-occur with it before others
are made likelier. Only the reasoning attention learns. The language model is frozen, stage I merged into it, so the
states, keys and values of a text are constants that are made once, and a rollout costs the thoughts and the end token
alone.

With several thoughts the action is all of them: noise is added to the thoughts as they stand, and each thought's
gradient holds the earlier ones constant, as in stage I, unless `through_first_pass` of the start is set.

`policy: vector` adds the noise to the item's vector instead, so that the reward reaches all that made it, and a rollout
costs no pass at all. `learns: adapters` or `both` lets stage I's adapters go on learning, without dropout: two passes
over an item are then the same policy. Gradients run through both passes, the one that the thought is made from and the
one that sums up; nothing of a text is constant any more, so every update reads its items again.

As published, which is thought wrong in places: `crrl_published.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tessera.artifacts.logs import log
from tessera.data.dataset import Dataset, load_dataset
from tessera.embedding.contrastive import ItemBatches
from tessera.embedding.cooccurrence import Candidates, build_candidates
from tessera.embedding.embedder import Embedder
from tessera.embedding.lrcl import LRCLRecipe
from tessera.embedding.policy import clipped_share, gaussian_divergence, gaussian_log_ratio, policy_loss
from tessera.embedding.prefixes import Prefixes
from tessera.embedding.recipe import Given, Recipe, Rows, TrainedRecipe
from tessera.embedding.rewards import (
    degenerate,
    expected_ranks,
    group_advantages,
    ndcg_reward,
    rank_reward,
    softmax_reward,
    supervised_loss,
)
from tessera.embedding.rollouts import embeddings
from tessera.embedding.text import Items, check_texts_differ, embed_rows, item_rows, told_items
from tessera.language.lora import add_lora, lora_weights
from tessera.language.probe import check_alone
from tessera.language.prompts import Attributes
from tessera.language.reasoning import LatentReasoner, Prefix
from tessera.settings.recipes.crrl import CRRLTable
from tessera.training.losses import Losses, Term, reported
from tessera.training.machine import Machine, seed_step
from tessera.training.phases import FixedSteps, Optimizer, Phase, Position, Update

# of generators: what is drawn for a step, beside the order of items
_NOISE, _FRESH, _FIXED = 101, 102, 103

_REWARDS = {"rank": rank_reward, "ndcg": ndcg_reward, "softmax": softmax_reward}


@dataclass
class Rollouts:
    """What all updates on a batch of rollouts share: `mine` are this process's items, `batch` all processes'.

    Actions are (thoughts, width); the item's vector, where that is the action, is (1, width).
    """

    rows: np.ndarray
    """(mine,) which texts."""
    prefix: Prefix | None
    """(mine) texts as they were read; None where the model learns and has to read them again."""
    old: Tensor
    """(mine, 1, thoughts, width) actions of the policy that rolled out, without noise."""
    noise: Tensor
    """(mine, group, thoughts, width)."""
    advantages: Tensor
    """(batch, group)."""
    counted: Tensor
    """(batch, group) whether the rollout counts in the gradient."""
    reference: Tensor | None
    """(mine, 1, thoughts, width) actions of the reference policy, where the divergence counts."""
    numbers: dict[str, float]
    """What to log of it."""


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
            reasoner: the language model and the attention; which of them learns, the recipe says.
            prefixes: of `candidates.eligible`, in that order.
            candidates: who learns from whom.
            machine: device and processes.
        """
        self.table, self.reasoner, self.prefixes, self.candidates = table, reasoner, prefixes, candidates
        self.machine = machine
        self.frozen = table.learns == "thought"
        settings = table.training
        self.batches = ItemBatches(candidates.anchors, settings.batch, machine.world, settings.seed)
        self.at_start: Tensor | None = None
        """(texts, width) embeddings of all items, where they were made before the first step."""
        if table.negatives == "hard":
            numbers: dict[tuple[int, ...], int] = {}
            texts = np.array([numbers.setdefault(tuple(row), len(numbers)) for row in prefixes.rows], np.int64)
            self.at_start = self._catalogue()
            self.fixed = candidates.nearest(self.at_start.float().cpu().numpy(), texts)
        else:
            generator = np.random.default_rng((settings.seed, 0, _FIXED))
            self.fixed = candidates.draw(np.arange(len(candidates.anchors)), generator)
        self.reference = deepcopy(reasoner.attention)
        self.started = self._started()
        # the supervised loss draws no noise
        self.std = self.deviation() if table.objective == "policy" else 0.0

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
        rollouts = self.roll_out(step, ids, items, weights)
        return [Update(partial(self.update, rollouts))] * self.table.iterations

    @torch.no_grad()
    def roll_out(self, step: int, ids: np.ndarray, items: np.ndarray, weights: np.ndarray) -> Rollouts:
        """Actions with noise, and how much better than others each ranks the candidates of its item.

        Args:
            step: its number.
            ids: (mine,) items.
            items: (mine, candidates) what each is ranked among.
            weights: (mine, candidates) share of each positive, 0 at negatives.
        """
        rows = self._rows(ids)
        prefix = self.prefixes.of(rows) if self.frozen else None
        old = self._each(rows, self.act, prefix=prefix)[:, None]
        noise = self._noise(step, old)
        rolled = self.outcome(rows, old + noise, prefix)
        # each distinct item once, however many rollouts are compared with it
        distinct, where = np.unique(items, return_inverse=True)
        others = self.embed(self._rows(distinct))[torch.from_numpy(where.reshape(items.shape)).to(rolled.device)]
        similarity = self._compare(rolled, others)
        reward = _REWARDS[self.table.reward]
        rewards = self.machine.gather(reward(similarity, torch.from_numpy(weights).to(similarity)))
        numbers = {
            "reward": float(rewards[:, 1:].mean()),
            "reward_noise_free": float(rewards[:, 0].mean()),
            "degenerate": float(degenerate(rewards).float().mean()),
        }
        reference = self.reference_actions(rows, prefix, old) if self.table.kl else None
        return Rollouts(rows, prefix, old, noise, self.advantages(rewards), self.counted(rewards), reference, numbers)

    def update(self, rollouts: Rollouts) -> Losses:
        """The action, a thought or a vector, is made likelier under a Gaussian around what is said now."""
        table = self.table
        actions = self._each(rollouts.rows, self.act, prefix=rollouts.prefix)[:, None]
        log_ratio = self.machine.gather(gaussian_log_ratio(actions, rollouts.old, rollouts.noise, self.std))
        loss = policy_loss(log_ratio, rollouts.advantages, rollouts.counted, table.clip_low, table.clip_high)
        divergence = None
        if rollouts.reference is not None:
            divergence = self.machine.gather(gaussian_divergence(actions, rollouts.reference, self.std)).mean()
        return self.losses(loss, log_ratio, divergence, rollouts)

    def losses(self, loss: Tensor, log_ratio: Tensor, divergence: Tensor | None, rollouts: Rollouts) -> Losses:
        """The losses of an update, and what the curve tells beside them.

        Args:
            loss: () of the policy.
            log_ratio: (batch, group), or (batch, group, tokens).
            divergence: () from the reference policy, where it counts.
            rollouts: what the update is on.
        """
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
        return losses | {name: reported(number) for name, number in numbers.items()}

    def _contrast(self, ids: np.ndarray, items: np.ndarray, weights: np.ndarray) -> Losses:
        """The control: the same pairs, a supervised loss, and the gradient through the language model's tail pass;
        through both passes where the model learns.
        """
        distinct, where = np.unique(np.concatenate([ids[:, None], items], axis=1), return_inverse=True)
        vectors = self.embed(self._rows(distinct))
        vectors = vectors[torch.from_numpy(where.reshape(len(ids), -1)).to(vectors.device)]
        similarity = self._compare(vectors[:, :1], vectors[:, 1:])
        right = torch.from_numpy(weights).to(similarity)
        loss = self.machine.gather(supervised_loss(similarity[:, 0], right, self.table.supervised_temperature)).mean()
        rewards = self.machine.gather(rank_reward(similarity.detach(), right))
        return {"loss": Term(loss), "reward_noise_free": reported(rewards.mean())}

    # ------------------------------------------------------------ what decides

    @torch.no_grad()
    def deviation(self) -> float:
        """Standard deviation of the noise: a share of the root mean square of the actions of all items that learn."""
        total, count = 0.0, 0
        rows = self._rows(self.candidates.anchors)
        # made already, in the same batches, where all items learn and a divergence asks for them
        made = self.started if len(rows) == len(self.prefixes) else None
        for batch in self.prefixes.batches(rows):
            if made is None:
                actions = self.act(self.prefixes.of(rows[batch])).double()
            else:
                actions = made[torch.from_numpy(batch).to(made.device)].double()
            total, count = total + float(actions.square().sum()), count + actions.numel()
        # nothing is acted on where there are no thoughts, which the supervised loss alone can do without
        deviation = self.table.noise_std * float((total / max(count, 1)) ** 0.5)
        what = "vectors" if self.table.policy == "vector" else "thoughts"
        log.info("noise: standard deviation %.4g (%g of the %s')", deviation, self.table.noise_std, what)
        return deviation

    def advantages(self, rewards: Tensor) -> Tensor:
        """(batch, group) of rewards (batch, group): relative to the item's other rollouts."""
        return group_advantages(rewards)

    def counted(self, rewards: Tensor) -> Tensor:
        """(batch, group) which rollouts count in the gradient: the first has no noise, and no density."""
        counted = torch.ones_like(rewards, dtype=torch.bool)
        counted[:, 0] = False
        return counted

    def comparable(self, vectors: Tensor) -> Tensor:
        """Embeddings (..., width) whose products are similarities: cosines."""
        return F.normalize(vectors, dim=-1)

    def reference_actions(self, rows: np.ndarray, prefix: Prefix | None, old: Tensor) -> Tensor:
        """(mine, 1, thoughts, width) of the policy at the start; `old` are those of the policy that rolled out."""
        if self.started is not None:
            return self.started[torch.from_numpy(rows).to(self.started.device)][:, None]
        learned = self.reasoner.attention
        self.reasoner.attention = self.reference
        actions = self._each(rows, self.act, prefix=prefix)[:, None]
        self.reasoner.attention = learned
        return actions

    @torch.no_grad()
    def _started(self) -> Tensor | None:
        """(texts, thoughts, width) actions at the start, where the model will no longer say them and they are asked."""
        if self.frozen or not self.table.kl:
            return None
        return self._each(np.arange(len(self.prefixes)), self.act)

    # ------------------------------------------------------------ actions and embeddings

    def act(self, prefix: Prefix) -> Tensor:
        """(n, thoughts, width) what the policy's Gaussian stands around: the thoughts, or the vector, (n, 1, width)."""
        return self.vector(prefix)[:, None] if self.table.policy == "vector" else self._think(prefix)

    def vector(self, prefix: Prefix) -> Tensor:
        """(n, width) embeddings without noise, as the model and its attention are."""
        return self._finish(prefix, self._think(prefix)[:, None])[:, 0]

    def outcome(self, rows: np.ndarray, actions: Tensor, prefix: Prefix | None) -> Tensor:
        """(n, group, width) embeddings that actions (n, group, thoughts, width) lead to."""
        if self.table.policy == "vector":
            return actions[:, :, 0]
        return self._each(rows, self._finish, actions, prefix=prefix)

    def embed(self, rows: np.ndarray) -> Tensor:
        """(n, width) embeddings of texts without noise, as the model and its attention are."""
        return self._each(rows, self.vector)

    def _finish(self, prefix: Prefix, thoughts: Tensor) -> Tensor:
        """(n, group, width) embeddings of thoughts (n, group, thoughts, width)."""
        with self.machine.autocast():
            return embeddings(self.reasoner, prefix, thoughts)

    def _each(
        self, rows: np.ndarray, make: Callable[..., Tensor], *given: Tensor, prefix: Prefix | None = None
    ) -> Tensor:
        """What is made of texts, in batches of like length.

        Args:
            rows: (n,) which texts.
            make: from a prefix, and the rows of `given` that belong to it.
            given: (n, ...) further arguments.
            prefix: of all of them, where they were read already: then they are one batch.
        """
        if prefix is not None:
            return make(prefix, *given)
        again = not self.frozen and self.prefixes.recompute and torch.is_grad_enabled()
        parts, batches = [], self.prefixes.batches(rows)
        for batch in batches:
            theirs = [part[torch.from_numpy(batch).to(part.device)] for part in given]

            def one(batch: np.ndarray = batch, theirs: list[Tensor] = theirs) -> Tensor:
                return make(self.prefixes.of(rows[batch]), *theirs)

            parts.append(checkpoint(one, use_reentrant=False) if again else one())
        order = np.argsort(np.concatenate(batches), kind="stable")
        made = torch.cat(parts)
        return made[torch.from_numpy(order).to(made.device)]

    @torch.no_grad()
    def _catalogue(self) -> Tensor:
        """(texts, width) embeddings of all items as the model is now, made by all processes."""
        rows = np.arange(len(self.prefixes))
        world = self.machine.world
        # every process holds as many; what is embedded twice is cut off
        padded = np.resize(rows, -(-len(rows) // world) * world)
        return self.machine.gather(self.embed(self.machine.share(padded)))[: len(rows)]

    @torch.no_grad()
    def positive_rank(self, vectors: Tensor | None = None) -> float:
        """Mean rank, from 0, of the positives of all items among their fixed candidates, without noise; `vectors` are
        the embeddings of all items, where they are made already.
        """
        vectors = self._catalogue() if vectors is None else vectors
        ranks = []
        size = max(1, 2**24 // (self.candidates.size * vectors.shape[1]))
        for start in range(0, len(self.candidates.anchors), size):
            block = slice(start, start + size)
            own = vectors[torch.from_numpy(self._rows(self.candidates.anchors[block])).to(vectors.device)]
            others = vectors[torch.from_numpy(self._rows(self.fixed[0][block])).to(vectors.device)]
            expected = expected_ranks(self._compare(own[:, None], others))[:, 0]
            ranks.append((expected * torch.from_numpy(self.fixed[1][block]).to(expected)).sum(-1))
        return float(torch.cat(ranks).double().mean())

    def _rows(self, items: np.ndarray) -> np.ndarray:
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
            return self.comparable(own) @ self.comparable(others).mT

    def _noise(self, step: int, old: Tensor) -> Tensor:
        """(mine, group, thoughts, width); the first rollout has none. Drawn for the batch of all processes."""
        shape = (self.batches.batch, self.table.group, *old.shape[2:])
        drawn = np.random.default_rng((self.table.training.seed, step, _NOISE)).standard_normal(shape, np.float32)
        drawn[:, 0] = 0.0
        return torch.from_numpy(self.machine.share(drawn)).to(old.device) * self.std


class CRRLRecipe(TrainedRecipe):
    """Stage II of ReaEmb, on top of a recipe that reasons."""

    TRAINING: ClassVar[type[CollaborativeTraining]] = CollaborativeTraining
    settings: CRRLTable
    start: LRCLRecipe
    training: CollaborativeTraining
    stage_one: Embedder
    rank_before: float
    end = True
    """Whether the end token follows the thoughts when the catalogue is embedded."""

    def __init__(self, settings: CRRLTable, given: Given, start: Recipe | None = None) -> None:
        """
        Args:
            settings: of the table.
            given: what it works with.
            start: the recipe of stage I; it tells items and thinks about them, trained or not.
        Raises:
            ValueError: `start` makes no thoughts.
        """
        super().__init__(settings, given, start)
        if not isinstance(start, LRCLRecipe):
            raise ValueError(
                f"{settings.recipe}: start: {type(start).__name__} does not reason: a recipe that this one can go on "
                f"from extends {LRCLRecipe.__module__}.{LRCLRecipe.__name__}"
            )
        if start.settings.thoughts == 0 and settings.needs_thoughts:
            raise ValueError(f"{settings.recipe}: its start has no thoughts (thoughts: 0), {settings.NO_THOUGHTS}")

    def check_model(self) -> None:
        """See `Recipe.check_model`: as the start reads, and as rollouts do: several thoughts in one row, if any are."""
        start = self.start
        start.check_model()
        with torch.random.fork_rng(devices=[]):  # which a fresh attention would draw from
            attention = start.attention()
        several = self.settings.objective == "policy" and self.settings.policy != "vector"
        encode = partial(self._encode, start.encoder(attention).eval(), 2 if several else 1)
        check_alone(self.given.model, encode, f"recipe {self.settings.recipe}", start.room, instead=start.INSTEAD)

    # ------------------------------------------------------------ what is read

    def candidates(self, dataset: Dataset, described: Items) -> Candidates:
        """Who learns from whom, by the training histories; `described` are the items that have a text."""
        return build_candidates(dataset, described, self.settings)

    def texts(self, attributes: Mapping[int, Attributes], items: Items, training: bool = False) -> list[list[int]]:
        """Token rows of items, as the start tells them; `training`: while the attention learns."""
        return item_rows(attributes, items, self.start.frame(), self.given.model, self.start.room)

    # ------------------------------------------------------------ training

    def begin(self, machine: Machine) -> nn.Module:
        """See `TrainedRecipe.begin`."""
        settings, given, model = self.settings, self.given, self.given.model
        attributes, described = told_items(given.catalogue, given.prompt, given.captions)
        candidates = self.candidates(load_dataset(given.data), described)
        model.move(machine.device)
        model.full.requires_grad_(False).eval()
        self.stage_one = self._stage_one()
        learner, reasoner = self._learner()
        rows = self.texts(attributes, candidates.eligible, training=True)
        check_texts_differ(given.catalogue, rows)
        start = self.start.settings
        frozen = settings.learns == "thought"
        prefixes = Prefixes(
            reasoner, rows, settings.cache_gib if frozen else None, start.batch_tokens, machine, start.recompute
        )
        self.training = self.TRAINING(settings, reasoner, prefixes, candidates, machine)
        log.info(
            "%s: %s items learn, %d a step, %d rollouts each, %s trained parameters, on %s",
            settings.recipe, f"{len(candidates.anchors):,}", self.training.batches.batch, settings.group,
            f"{sum(p.numel() for p in learner.parameters() if p.requires_grad):,}", machine.device,
        )  # fmt: skip
        self.rank_before = self.training.positive_rank(self.training.at_start)
        self.training.at_start = None
        return learner

    def _stage_one(self) -> Embedder:
        """The trained start, merged into the model unless its adapters learn; without one, a random attention on the
        model as it is, and fresh adapters where they learn.
        """
        frozen = self.settings.learns == "thought"
        if self.given.embedder is not None:
            return self.start.load(merge=frozen)
        seed_step(self.settings.training.seed)
        if frozen:
            return Embedder({}, None, self.start.attention(), None, {})
        lora = self.start.settings.lora
        add_lora(self.given.model.tower, lora)
        # fresh dropout modules are in training mode
        self.given.model.tower.eval()
        return Embedder(lora_weights(self.given.model.tower), lora, self.start.attention(), None, {})

    def _learner(self) -> tuple[nn.Module, LatentReasoner]:
        """What the engine trains, of which only what requires gradients, and the reasoner that it is a part of."""
        learns, attention = self.settings.learns, self.stage_one.attention
        reasoner = self.start.encoder(attention).eval()
        if learns == "thought":
            assert attention is not None
            return attention, reasoner
        if attention is not None:
            attention.requires_grad_(learns == "both")
        for weight in lora_weights(self.given.model.tower).values():
            weight.requires_grad_(True)
        reasoner.settings = reasoner.settings.model_copy(update={"through_first_pass": True})
        return reasoner, reasoner

    def program(self) -> list[Phase]:
        """See `TrainedRecipe.program`."""
        settings = self.settings.training
        return [Phase(self._updates, FixedSteps(settings.steps), {"model": Optimizer(settings)})]

    def _updates(self, _: None, at: Position) -> Iterable[Update]:
        return self.training.updates(at.step)

    def trained(self, history: list[dict[str, Any]]) -> Embedder:
        """The attention, and stage I's adapters, as they were or as they learned: what is written embeds by itself."""
        table, before, after = self.settings, self.rank_before, self.training.positive_rank()
        log.info(
            "%s: mean rank of the positives among %d candidates %.3f -> %.3f",
            table.recipe, table.candidates, before, after,
        )  # fmt: skip
        if history:
            history[0]["positive_rank_before"] = before
            history[-1]["positive_rank_after"] = after
        description = {
            "recipe": table.recipe, "settings": table.model_dump(mode="json"),
            "start": self.start.settings.model_dump(mode="json"),
            "items": len(self.training.candidates.anchors), "noise_std": self.training.std or None,
            "positive_rank_before": before, "positive_rank_after": after,
        }  # fmt: skip
        start = self.stage_one
        adapters = start.adapters if table.learns == "thought" else lora_weights(self.given.model.tower)
        return Embedder(adapters, start.lora, start.attention, None, description)

    # ------------------------------------------------------------ embedding

    def rows(self) -> Rows:
        """See `Recipe.rows`."""
        given, start = self.given, self.start
        attributes, items = told_items(given.catalogue, given.prompt, given.captions)
        rows = self.texts(attributes, items)
        encode = partial(self._encode, start.encoder(start.load().attention).eval(), 1)
        return Rows(items, embed_rows(rows, encode, given.model, start.settings.batch_tokens))

    def _encode(self, reasoner: LatentReasoner, rollouts: int, ids: Tensor, mask: Tensor) -> Tensor:
        """(batch, width) of token ids and mask (batch, length): the last of so many rollouts, all without noise."""
        prefix = reasoner.read(ids, mask)
        thoughts = reasoner.think(prefix)[:, None].expand(-1, rollouts, -1, -1)
        return embeddings(reasoner, prefix, thoughts, self.end)[:, -1]
