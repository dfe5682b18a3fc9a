"""Habits of ReaEmb's published stage II that are thought wrong; `preset: official` has all of them, a key has one.

What each key does, and why it is thought wrong: docs/systems/reaemb.md. The token policy adds noise to a thought and
makes the tokens that the language model reads after it likelier.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from tessera.artifacts.logs import log
from tessera.data.dataset import Dataset
from tessera.embedding.cooccurrence import Candidates, Histories, build_candidates
from tessera.embedding.crrl import CollaborativeTraining, CRRLRecipe, Rollouts
from tessera.embedding.lrcl_published import check_decoder
from tessera.embedding.policy import policy_loss, surrogate_sum
from tessera.embedding.rollouts import tail_states
from tessera.embedding.text import Items, item_rows
from tessera.language.prompts import Attributes
from tessera.language.reasoning import Prefix
from tessera.language.states import widen
from tessera.language.tokens import chat_frame, plain_frame
from tessera.training.losses import Losses

if TYPE_CHECKING:
    from tessera.language.models import LanguageModel

THOUGHT = "<|Thought|>"
INSTRUCTION = "### Instruction:\nSum up the item below.\n\n### Item:\n"
LAST_TOKENS = 128


def thought_token(model: LanguageModel) -> int:
    """The token that a thought stands for where its likelihood is asked: `<|Thought|>`, if the tokenizer has it.

    The published code adds that token, which takes the first row after the tokenizer's; a model without a spare row
    takes padding.
    """
    known = model.tokenizer.get_vocab()
    rows = int(model.full.get_output_embeddings().weight.shape[0])  # type: ignore[operator]
    return int(known.get(THOUGHT, len(known) if len(known) < rows else model.pad_token))


def token_log_probability(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log likelihood of tokens (length,) under logits (..., length, vocabulary), in at least float32: (..., length)."""
    wide = widen(logits).log_softmax(-1)
    return wide.gather(-1, tokens.expand(logits.shape[:-1])[..., None]).squeeze(-1)


def token_divergence(log_probability: Tensor, reference: Tensor) -> Tensor:
    """Estimate of KL from tokens as in GRPO: exp(x) - x - 1 with x = log p_ref - log p."""
    apart = reference - log_probability
    return apart.exp() - apart - 1


def mean_over_all_tokens(
    log_ratio: Tensor, advantages: Tensor, counted: Tensor, low: float, high: float, prefix: Tensor
) -> Tensor:
    """`policy_loss` over the tokens of the prompt too.

    Their ratio is exactly 1 and their gradient exactly 0, so they only add a constant and shrink the gradient.

    Args:
        log_ratio: (items, group, tokens).
        advantages: (items, group).
        counted: (items, group) whether a rollout counts.
        low, high: clipping range.
        prefix: (items,) tokens before the first thought.
    """
    total, count = surrogate_sum(log_ratio, advantages, counted, low, high)
    before, weight = prefix.to(total.dtype)[:, None], counted.to(total.dtype)
    return -(total + (before * advantages * weight).sum()) / (count + (before * weight).sum())


def batch_advantages(rewards: Tensor) -> Tensor:
    """(R - b) / (|R - b| + 1e-6): b is the mean reward of the noise-free (first) rollouts of the batch, the norm is
    over the whole batch. An item whose rollouts are all poor has only negative advantages.
    """
    centred = rewards - rewards[:, 0].mean()
    advantages: Tensor = centred / (centred.norm() + 1e-6)
    return advantages


def all_histories(dataset: Dataset) -> Histories:
    """`cooccurrence: all`: offsets and items of whole histories, held-out interactions included."""
    log.warning(
        "cooccurrence: all -- VALIDATION AND TEST INTERACTIONS ARE COUNTED, as in the published code; "
        "results of this table are no evidence for the method"
    )
    return dataset.offsets, dataset.items


@dataclass
class PublishedRollouts(Rollouts):
    """What updates by tokens need besides."""

    before: Tensor | None = None
    """(batch,) tokens before the thoughts, where the loss is a mean over all tokens."""
    reference_log_probability: Tensor | None = None
    """(mine, group, tokens) under the reference policy, where the divergence counts."""
    log_probability: Tensor | None = None
    """(mine, group, tokens) under the policy that rolled out: the first update makes it, its ratio is exactly 1."""


class PublishedTraining(CollaborativeTraining):
    """Every key that is as published has its say; the others are as in `CollaborativeTraining`."""

    def deviation(self) -> float:
        """`noise_scale: absolute`."""
        return self.table.noise_std if self.table.noise_scale == "absolute" else super().deviation()

    def advantages(self, rewards: Tensor) -> Tensor:
        """`advantage: batch`."""
        return batch_advantages(rewards) if self.table.advantage == "batch" else super().advantages(rewards)

    def counted(self, rewards: Tensor) -> Tensor:
        """`noise_free: rollout`: the first rollout counts like the others."""
        rollout = self.table.noise_free == "rollout"
        return torch.ones_like(rewards, dtype=torch.bool) if rollout else super().counted(rewards)

    def comparable(self, vectors: Tensor) -> Tensor:
        """`similarity: dot`."""
        return vectors if self.table.similarity == "dot" else super().comparable(vectors)

    def reference_actions(self, rows: np.ndarray, prefix: Prefix | None, old: Tensor) -> Tensor:
        """`reference: live`."""
        return old if self.table.reference == "live" else super().reference_actions(rows, prefix, old)

    # ------------------------------------------------------------ policy: token

    @torch.no_grad()
    def roll_out(self, step: int, ids: np.ndarray, items: np.ndarray, weights: np.ndarray) -> Rollouts:
        """See `CollaborativeTraining.roll_out`."""
        rollouts = super().roll_out(step, ids, items, weights)
        if self.table.policy != "token":
            return rollouts
        published = PublishedRollouts(**vars(rollouts))
        prefix = published.prefix
        assert prefix is not None  # the model is frozen
        if self.table.log_probability == "unshifted":
            published.before = self.machine.gather(prefix.lengths)
        if published.reference is not None:
            with self.machine.autocast():
                likelihood = self.log_probability(prefix, published.reference + published.noise)
            published.reference_log_probability = likelihood
        return published

    def update(self, rollouts: Rollouts) -> Losses:
        """`policy: token`: the tokens after the thought are made likelier."""
        if not isinstance(rollouts, PublishedRollouts):
            return super().update(rollouts)
        prefix = rollouts.prefix
        assert prefix is not None  # the model is frozen
        log_probability = self.log_probability(prefix, self._think(prefix)[:, None] + rollouts.noise)
        if rollouts.log_probability is None:
            rollouts.log_probability = log_probability.detach()
        log_ratio = self.machine.gather(log_probability - rollouts.log_probability)
        how = (log_ratio, rollouts.advantages, rollouts.counted, self.table.clip_low, self.table.clip_high)
        loss = policy_loss(*how) if rollouts.before is None else mean_over_all_tokens(*how, rollouts.before)
        divergence = None
        if rollouts.reference_log_probability is not None:
            each = self.machine.gather(token_divergence(log_probability, rollouts.reference_log_probability)).mean(-1)
            divergence = each[rollouts.counted].mean()
        return self.losses(loss, log_ratio, divergence, rollouts)

    def log_probability(self, prefix: Prefix, thoughts: Tensor) -> Tensor:
        """(items, group, tokens) log likelihoods of what thoughts (items, group, thoughts, width) can move.

        `log_probability: unshifted` asks the state at a token for it, which has read it.
        """
        model = self.reasoner.model
        states = tail_states(self.reasoner, prefix, thoughts)
        tail = [*[thought_token(model)] * self.reasoner.settings.thoughts, model.end_token]
        tokens = torch.tensor(tail, device=states.device)
        if self.table.log_probability == "shifted":
            states, tokens = states[:, :, :-1], tokens[1:]
        return token_log_probability(model.logits(states), tokens)


class PublishedCRRL(CRRLRecipe):
    """Stage II as published."""

    TRAINING: ClassVar[type[CollaborativeTraining]] = PublishedTraining

    def __init__(self, *given: Any) -> None:
        """
        Args:
            given: as `CRRLRecipe` takes it.
        Raises:
            ValueError: nothing would stand behind a text.
        """
        super().__init__(*given)
        # neither chat format nor end token in the published export
        self.end = self.settings.prompts == "one"
        if not (self.end or self.start.settings.thoughts):
            raise ValueError(f"{self.settings.recipe}: its start has no thoughts (thoughts: 0), {self.settings.NO_END}")

    def check_model(self) -> None:
        """See `Recipe.check_model`."""
        kept = [key for key in self.settings.OF_DECODERS if key in self.settings.habits()]
        check_decoder(self.settings, kept, self.given.model)
        super().check_model()

    def candidates(self, dataset: Dataset, described: Items) -> Candidates:
        """See `CRRLRecipe.candidates`."""
        if self.settings.cooccurrence == "train":
            return super().candidates(dataset, described)
        return build_candidates(dataset, described, self.settings, all_histories(dataset))

    def texts(self, attributes: Mapping[int, Attributes], items: Items, training: bool = False) -> list[list[int]]:
        """`prompts: by_stage`: another request, no domain sentence, and the last 128 tokens alone, so that the head may
        be lost; for export neither chat template nor end token.
        """
        if self.settings.prompts == "one":
            return super().texts(attributes, items, training)
        model, start = self.given.model, self.start
        frame = chat_frame(model, INSTRUCTION) if training else plain_frame(model, INSTRUCTION, end=False)
        kept = LAST_TOKENS - start.settings.thoughts - 1
        return [row[-kept:] for row in item_rows(attributes, items, frame, model, start.room)]
