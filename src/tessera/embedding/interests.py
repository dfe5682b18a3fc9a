"""Written interests of typical users: who is typical, what their training histories show, and how a model reads it.

Of the training interactions alone. A user's last one is left out too: from the interests it is predicted.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tessera.artifacts.interests import Interest
from tessera.artifacts.logs import Progress, log
from tessera.data.dataset import load_dataset
from tessera.embedding.interest_writers import Counts, Writer, Written
from tessera.embedding.recipe import Recipe, Rows, Vectors
from tessera.embedding.speaker import Speaker
from tessera.embedding.text import check_states, embed_rows, embed_text
from tessera.embedding.typical import means, typical
from tessera.language.prompts import Attributes, item_attributes
from tessera.language.states import pool, read_states
from tessera.language.tokens import plain_frame, tokenize
from tessera.settings.recipes.interests import InterestsTable
from tessera.settings.recipes.text import TextTable

Longs = npt.NDArray[np.int64]


class InterestsRecipe(Recipe):
    """Interests of typical users."""

    settings: InterestsTable

    def check_model(self) -> None:
        """See `Recipe.check_model`."""
        check_states(self.settings, self.given.model)

    def rows(self) -> Rows:
        """See `Recipe.rows`; the rows are of users.

        Raises:
            ValueError: nobody has a history that says anything, or nothing could be read of what was written.
        """
        offsets, items = load_dataset(self.given.data).train_histories()
        chosen = self._typical(offsets, items)
        attributes = item_attributes(self.given.catalogue, self.given.prompt, self.given.captions)
        writer = self._writer(attributes)
        users: list[int] = []
        interests: list[Interest] = []
        dropped = 0
        with Progress("typical users", len(chosen), "users") as progress:
            for user in chosen.tolist():
                history = items[offsets[user] : offsets[user + 1] - 1][-self.settings.longest :].tolist()
                written = writer.write(history)
                if written is None:
                    dropped += 1
                else:
                    users += [user + 1] * len(written)
                    interests += written
                progress.update(1)
        if dropped:
            why = ", ".join(f"{count:,} x {reason}" for reason, count in writer.reasons.most_common(5))
            log.warning("%s of %s typical users were dropped (%s)", f"{dropped:,}", f"{len(chosen):,}", why)
        if not interests:
            if self.settings.writer is None:
                raise ValueError(
                    f"{self.given.catalogue}: the items of none of {len(chosen)} typical users share an attribute or a "
                    "word that others lack; look at what is told of the items, or name a `writer`"
                )
            raise ValueError(
                f"nothing that was written of {len(chosen)} typical users could be read; use a writer that answers "
                "questions in JSON, or leave `writer` out, which counts attributes and words"
            )
        counts = {"typical": len(chosen), "dropped": dropped}
        return Rows(np.array(users, np.int64), self._read(interests), interests=interests, counts=counts)

    def _typical(self, offsets: Longs, items: npt.NDArray[np.int32]) -> Longs:
        """(n,) typical users from 0, ascending."""
        settings, given = self.settings, self.given
        known, rows = embed_text(
            TextTable.model_validate({key: getattr(settings, key) for key in _READ}),
            given.prompt, given.model, given.catalogue, given.captions,
        )  # fmt: skip
        vectors = np.zeros((int(max(items.max(initial=0), known.max())) + 1, rows.shape[1]), np.float32)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        vectors[known] = rows / np.where(lengths == 0, 1, lengths)
        present = np.zeros(len(vectors), bool)
        present[known] = True
        counts = np.diff(offsets)
        # without the last item of each
        kept = np.ones(len(items), bool)
        kept[offsets[1:][counts > 0] - 1] = False
        shorter = np.concatenate([[0], np.cumsum(np.maximum(counts - 1, 0))])
        earlier = items[kept]
        tell = np.bincount(np.repeat(np.arange(len(counts)), np.diff(shorter)), present[earlier], minlength=len(counts))
        usable = np.flatnonzero((np.diff(shorter) >= settings.least) & (tell > 0))
        if not len(usable):
            raise ValueError(
                f"{given.data}: no user has {settings.least} training items, the last one not counted, of which any "
                "has a text; lower `least`, or look at what is told of the items"
            )
        wanted = max(1, round(settings.share * len(counts)))
        log.info("%d of %d users have a history that says enough", len(usable), len(counts))
        if settings.choose == "random":
            drawn = np.random.default_rng(settings.seed).permutation(usable)[:wanted]
            return np.sort(drawn).astype(np.int64)
        place, clusters = typical(
            means(shorter, earlier, vectors, present)[usable], wanted, settings.clusters, settings.seed
        )
        log.info("%d typical users of %d clusters", len(place), len(np.unique(clusters)))
        return usable[place].astype(np.int64)

    def _writer(self, attributes: dict[int, Attributes]) -> Writer:
        settings, given = self.settings, self.given
        if settings.writer is None:
            return Counts(attributes, settings.most)
        speaker = Speaker(given.writer or given.model, settings.max_new_tokens, given.answers)
        return Written(attributes, given.prompt.domain, settings.most, settings.attempts, speaker.say, speaker.fits)

    @torch.no_grad()
    def _read(self, interests: list[Interest]) -> Vectors:
        """(n, width) pooled states of interests as texts; equal ones are read once."""
        settings, model = self.settings, self.given.model
        texts = list(dict.fromkeys(one.text for one in interests))
        rows, _ = tokenize(texts, plain_frame(model), model.tokenizer, min(settings.max_tokens, model.context))
        model.full.eval()

        def encode(ids: Tensor, mask: Tensor) -> Tensor:
            return pool(read_states(model, ids, mask, which=settings.states), mask, "mean")

        vectors = embed_rows(rows, encode, model, settings.batch_tokens)
        place = {text: number for number, text in enumerate(texts)}
        return vectors[[place[one.text] for one in interests]]


_READ = ("model", "captions", "states", "max_tokens", "batch_tokens")
"""Keys that say how items are read."""
