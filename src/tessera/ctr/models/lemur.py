"""LEMUR (arXiv 2511.10962): encoders of raw content that learn with the ranker, and histories from a memory bank.

No code was published: built from descriptions of the paper; docs/systems/lemur.md lists what was chosen.

A step reads the distinct items that its impressions show with a document transformer, writes their vectors into a bank,
and only then reads the histories' vectors from there, without gradient. Decoders and cosines over these, the ids of
items, and the query's vector are tokens of a RankMixer. The click's loss and a contrastive loss of queries and items
reach the encoders. Where training has ended nothing is encoded any more: the bank speaks for every item.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from tessera.content.bank import MemoryBank
from tessera.content.fields import FieldContent
from tessera.content.mapped import Mapped, Table, pieces
from tessera.content.typed import TypedEncoder
from tessera.ctr.banked import Decoder, Events, similarities
from tessera.ctr.batch import Batch, Catalogue
from tessera.ctr.mixing import RankMixer
from tessera.ctr.models.base import ClickModel, ShortTerm, filled
from tessera.ctr.shares import AcrossRows
from tessera.ctr.task import BatchOf
from tessera.objectives.contrastive import session_contrastive, soft_contrastive
from tessera.settings.clicks.lemur import LEMURSettings, QueryReader
from tessera.settings.ctr import CTRTraining
from tessera.training.losses import Losses, Term, reported
from tessera.training.phases import FixedSteps, Optimizer, Phase, Position, Update

CONTENT_ID_TEMPERATURE = 0.1


@dataclass(frozen=True)
class Content:
    """What is known of the content of a batch's items."""

    targets: Tensor
    """(rows, width) vectors of what is shown."""
    known: Tensor
    """(rows,) bool: whether there is one; else a learned vector stands for it."""
    queries: Tensor
    """(rows, width)."""
    table: Tensor
    """(n, width) vectors of distinct items, to which histories point."""
    table_known: Tensor
    """(n,) bool."""
    at: Tensor
    """(rows or 1, length) int64 rows of the table, one an event."""


@dataclass(frozen=True)
class Prepared:
    """What the candidates of a request share."""

    anchor: Tensor
    """(1,) the item that stands for the query; 0 where there is none."""
    table: Tensor
    table_known: Tensor
    long: Events
    recent: Events
    short: tuple[Tensor, Tensor]
    """Id vectors of the last events, and which there are."""
    length: Tensor
    """(1,) events that are read."""


class Model(ClickModel, AcrossRows):
    """LEMUR under its three regimes."""

    def __init__(self, settings: LEMURSettings, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        if catalogue.content is None:
            raise ValueError("the model reads texts and pictures of items, and is given none: make the content first")
        self.settings, content, width = settings, catalogue.content, settings.width
        self.reads = max(settings.long, settings.recent, settings.short, 1)
        self.max_history = None if settings.counts else self.reads  # counts are of whole histories
        self.documents = _encoder(content, settings.documents, settings)
        self.queries = _encoder(content, settings.queries, settings, first_field=True)
        self.bank = MemoryBank(catalogue.items, width, settings.storage, settings.mapped)
        self.absent = nn.Parameter(torch.randn(width) * 0.02) if settings.regime == "bank" else None
        self.register_buffer("clock", torch.zeros((), dtype=torch.int64))
        self.query_vectors = Table(catalogue.items + 1, width, settings.mapped)
        self.decoders = nn.ModuleDict()
        ids = self.items.width
        groups = [ids, width + 1, width, width + 2]
        for name, size in self._sequences():
            self.decoders[name] = Decoder(width, settings.decoder_layers, settings.decoder_heads)
            groups += [width, *[size] * (2 * settings.cosines)]
        if len(self.decoders):
            self.asks = nn.Linear(2 * width + ids, width)
        self.short = ShortTerm(ids, settings.short, settings.attention_hidden)
        groups += [2 * ids] * self.short.interests
        self.mixer = RankMixer(groups, settings.token_dim, settings.mixer_layers, settings.mixer_expansion)
        sizes = [self.mixer.width, *settings.hidden]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(sizes):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(settings.dropout)]
        self.top = nn.Sequential(*layers, nn.Linear(sizes[-1], 1))
        self.beside = nn.Linear(ids, width) if settings.content_id else None
        self._counted: dict[str, float] = {}
        self._about: dict[str, Any] = {}

    def _sequences(self) -> list[tuple[str, int]]:
        sizes = {"long": self.settings.long, "recent": self.settings.recent}
        return [(name, size) for name, size in sizes.items() if size]

    # ------------------------------------------------------------ content of a batch

    def content(self, batch: Batch, histories: Tensor) -> Content:
        """Vectors of a batch with histories (batch, length): as the regime says in training, else of the snapshot."""
        anchors = last_events(histories, batch.lengths)
        if not self.training:
            distinct, at = torch.unique(histories, return_inverse=True)
            table, known = self._bank(distinct)
            targets, there = self._bank(batch.items)
            return Content(targets, there, self.query_vectors(anchors), table, known, at)
        regime = self.settings.regime
        queries = self.query_vectors(anchors) if regime == "frozen" else self._asked(anchors)
        together = torch.cat([batch.items, histories.flatten()])
        exact = regime == "end_to_end"
        distinct, rows = self.shares.distinct(together) if exact else torch.unique(together, return_inverse=True)
        own, at = rows[: len(batch)], rows[len(batch) :].view_as(histories)
        if exact:
            real = distinct > 0
            encoded = self.documents.levelled(self._encoded(self.documents, distinct[real]))
            table = torch.zeros(len(distinct), encoded.shape[1], device=encoded.device)
            table = table.index_copy(0, real.nonzero().squeeze(1), encoded.float())
            self._counted = {"tokens": self.documents.count_tokens(distinct[real]), "item_cosine": _alike(encoded)}
            return Content(table[own], real[own], queries, table, real, at)
        fresh = self._refresh(batch) if regime == "bank" else None
        table, known = self._bank(distinct)
        targets = table[own]
        if fresh is not None:
            items, vectors = fresh
            rows_of = torch.searchsorted(items, batch.items).clamp(max=len(items) - 1)
            hit = items[rows_of] == batch.items
            targets = torch.where(hit[:, None], vectors[rows_of].float(), targets)
            events = histories > 0
            there, every = self.shares.total(torch.stack([(known[at] & events).sum(), events.sum()]))
            self._counted["bank_coverage"] = float(there / every.clamp(min=1))
        return Content(targets, known[own], queries, table, known, at)

    def _encoded(self, encoder: TypedEncoder, items: Tensor) -> Tensor:
        """(n, width) of items (n,) that all processes have alike, each of which encodes a share of them."""
        return self.shares.all(encoder.encode(self.shares.mine(items)))

    def _asked(self, anchors: Tensor) -> Tensor:
        """(rows, width) vectors of queries; each of a step is encoded once."""
        asked, which = self.shares.distinct(anchors)
        return self.queries.levelled(self._encoded(self.queries, asked))[which]

    def _bank(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (n, width) of items (n,) as the bank has them, and which it has; no gradient to what it holds."""
        vectors, _, known = self.bank.read(items, int(self.get_buffer("clock")))
        if self.absent is not None:
            vectors = torch.where(known[:, None], vectors, self.absent)
        return vectors, known

    def _refresh(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Encode a share of the items shown and write them, before anything is read.

        All processes draw the same of what is shown to all of them, and write the same.

        Returns:
            items (n,), ascending, and their vectors (n, width), of which a share carries a gradient.
        """
        settings, clock = self.settings, self.get_buffer("clock")
        items, counts = torch.unique(self.shares.all(batch.items), return_counts=True)
        clock.add_(1)
        before, ages, known = self.bank.read(items, int(clock))
        draws = self.shares.of_first(torch.rand(len(items))) if settings.learned < 1 else None
        learning, reading = _some(
            items, draws, settings.forwarded, settings.learned, _chances(settings.refresh, ages, known, counts)
        )
        parts = [self._encoded(self.documents, items[learning])]
        if len(reading):
            with torch.no_grad():
                parts.append(self._encoded(self.documents, items[reading]))
        picked, order = torch.cat([learning, reading]).sort()
        vectors = self.documents.levelled(torch.cat(parts)[order])
        self.bank.write(items[picked], vectors.detach(), int(clock))
        again = known[picked]
        self._counted = {"tokens": self.documents.count_tokens(items[picked]), "item_cosine": _alike(vectors)}
        if again.any():  # how near what was kept is to what would be written now
            kept = F.cosine_similarity(before[picked][again], vectors.detach()[again].float(), dim=1)
            self._counted |= {"bank_cosine": float(kept.mean()), "bank_age": float(ages[picked][again].float().mean())}
        return items[picked], vectors

    # ------------------------------------------------------------ ranker

    def logits(self, batch: Batch) -> Tensor:
        batch = batch.latest(self.reads)
        histories = filled(batch.histories)
        return self._logits(batch, histories, self.content(batch, histories))

    def _logits(self, batch: Batch, histories: Tensor, content: Content) -> Tensor:
        ages = filled(batch.ages)
        sizes = {"long": self.settings.long, "recent": self.settings.recent}
        windows = {name: Events.latest(content.at, ages, batch.lengths, max(1, size)) for name, size in sizes.items()}
        short = self.short.events(self.items, histories, batch.lengths)
        return self._rank(batch.items, content, windows, short, batch.lengths)

    def _rank(
        self, items: Tensor, content: Content, windows: dict[str, Events], short: tuple[Tensor, Tensor], lengths: Tensor
    ) -> Tensor:
        """(rows,) logits of items (rows,) after the events that all rows share, or each has."""
        ids, targets, queries = self.items(items), content.targets, content.queries
        if not self.settings.ranker_gradient:
            content_table = content.table.detach()
            targets, queries = targets.detach(), queries.detach()
        else:
            content_table = content.table
        alike = F.cosine_similarity(queries, targets, dim=1)[:, None]
        size = torch.log1p(lengths.float())[:, None].expand(len(items), 1) / 7
        missing = (~content.known).float()[:, None]
        features = [ids, torch.cat([targets, missing], 1), queries, torch.cat([queries * targets, alike, size], 1)]
        for name, most in self._sequences():
            query = self.asks(torch.cat([targets, queries, ids], 1))
            features.append(self.decoders[name](query, content_table, windows[name]))
            if self.settings.cosines:
                features += similarities(targets, content_table, content.table_known, windows[name], most)
        for interest in self.short(ids, *short):
            features.append(torch.cat([interest, interest * ids], 1))
        logits: Tensor = self.top(self.mixer(features))
        return logits.squeeze(-1)

    # ------------------------------------------------------------ training

    def losses(self, batch: Batch) -> Losses:
        """Cross-entropy of clicks, and the contrastive losses."""
        whole, batch = batch, batch.latest(self.reads)
        histories = filled(batch.histories)
        content = self.content(batch, histories)
        logits = self._logits(batch, histories, content)
        if self.counts is not None:
            logits = logits + self.counts(whole)
        entropy = binary_cross_entropy_with_logits(logits, batch.labels)
        terms = {"cross-entropy": Term(self.shares.mean(entropy, len(batch)))}
        if self.settings.contrastive and self.settings.regime != "frozen":
            terms["contrastive"] = Term(self._query_loss(batch, content))
        if self.beside is not None:
            terms["content_id"] = Term(self._id_loss(batch, content, self.beside))
        return terms | {name: reported(value) for name, value in self._counted.items()}

    def _query_loss(self, batch: Batch, content: Content) -> Tensor:
        """The contrastive loss of clicked items and their queries, a mean over clicks (SQDC) of all processes."""
        settings, clicked = self.settings, batch.labels > 0
        positive = clicked & (batch.lengths > 0) & content.known
        negative = content.known & clicked if settings.negatives == "clicked" else content.known
        total, count = session_contrastive(
            self.shares.all(content.queries),
            self.shares.all(content.targets),
            self.shares.all(positive),
            self.shares.all(negative),
            settings.scale,
            self.shares.all(batch.users) if settings.session_mask else None,
            self.shares.all(batch.items) if settings.duplicate_mask else None,
        )
        return settings.contrastive * total / count.clamp(min=1)

    def _id_loss(self, batch: Batch, content: Content, beside: nn.Linear) -> Tensor:
        """The contrastive loss of items' content vectors and id vectors (CIC); items without a vector have no part."""
        distinct, first = _distinct(self.shares.all(batch.items))
        known = self.shares.all(content.known)[first]
        vectors: Tensor = self.shares.all(content.targets)[first[known]]
        ids: Tensor = beside(self.items(distinct[known]))
        if len(ids) < 2:  # nothing stands against it
            return (vectors.sum() + ids.sum()) * 0.0
        loss = soft_contrastive(vectors, ids, CONTENT_ID_TEMPERATURE, normalize=True, targets="identity")
        return self.settings.content_id * loss

    def alone(self, batch: Batch) -> Losses:
        """The contrastive loss of a batch whose queries and items are all encoded, without the ranker."""
        anchors = last_events(filled(batch.histories), batch.lengths)
        items, rows = self.shares.distinct(batch.items)
        vectors = self.documents.levelled(self._encoded(self.documents, items))
        known, every = torch.ones_like(batch.labels, dtype=torch.bool), torch.ones_like(items, dtype=torch.bool)
        content = Content(vectors[rows], known, self._asked(anchors), vectors, every, rows[:, None])
        beside = {"tokens": self.documents.count_tokens(items), "item_cosine": _alike(vectors)}
        loss = self._query_loss(batch, content)
        return {"contrastive": Term(loss), **{name: reported(value) for name, value in beside.items()}}

    def program(self, training: CTRTraining, per_epoch: int, batch_of: BatchOf) -> list[Phase]:
        """The contrastive loss alone, where that comes first, then the ranker, with the encoders unless frozen."""
        settings = self.settings
        inside = {id(parameter) for encoder in (self.documents, self.queries) for parameter in encoder.parameters()}
        encoder = [parameter for parameter in self.parameters() if id(parameter) in inside]
        ranker = [parameter for parameter in self.parameters() if id(parameter) not in inside]
        frozen, alone = settings.regime == "frozen", settings.pretraining
        if alone is None:
            alone = training.epochs if frozen else 0
        optimizers = {"encoder": Optimizer(settings.encoder, encoder), "ranker": Optimizer(training, ranker)}
        if frozen:
            optimizers.pop("encoder")

        def first(_: None, at: Position) -> Iterator[Update]:
            yield Update(lambda: self.alone(batch_of(at.step)), "encoder")

        def then(_: None, at: Position) -> Iterator[Update]:
            yield Update(lambda: self.losses(batch_of(at.step)), tuple(optimizers))

        phases = []
        if alone:
            own = {"encoder": Optimizer(settings.encoder, encoder)}
            phases.append(Phase(first, FixedSteps(alone * per_epoch), own, name="contrastive"))
        joint = Phase(
            then,
            FixedSteps(training.epochs * per_epoch),
            optimizers,
            name="ranker" if frozen else "joint",
            begin=self.fill if alone else None,
        )
        return [*phases, joint]

    # ------------------------------------------------------------ snapshot

    def place(self, folder: Path) -> None:
        """Vectors that are to be mapped lie in files of this folder from now on."""
        for part in self.modules():
            if isinstance(part, Mapped):
                part.place(folder)

    def fill(self) -> None:
        """Write the vectors of all queries and items, as the encoders have them now."""
        self._write(self._fresh())

    def _write(self, vectors: Tensor, over: bool = True) -> None:
        """Write vectors (items + 1, width) into the bank; unless `over`, of what it lacks alone."""
        for some in pieces(len(vectors)):
            items = torch.arange(some.start, some.stop, device=vectors.device)
            real = (items > 0) & (over | (self.bank.written[some] < 0).to(items.device))
            self.bank.write(items[real], vectors[some][real], int(self.get_buffer("clock")))

    def _fresh(self) -> Tensor:
        """(items + 1, width) vectors of all items as the encoder has them now; those of all queries are written."""
        self._say(self.queries, self.query_vectors.rows)
        return self._say(self.documents, self.bank.rows_like(self.bank.vectors))

    @torch.no_grad()
    def _say(self, encoder: TypedEncoder, table: Tensor) -> Tensor:
        """A table (items + 1, width), filled with what an encoder says of every item.

        What is standardised is measured by the items that training met, each once.
        """
        mode, device = encoder.training, self.get_buffer("clock").device
        encoder.eval()
        for some in pieces(len(table)):
            table[some] = self._encoded(encoder, torch.arange(some.start, some.stop, device=device)).to(table)
        encoder.settle(table, self.items.get_buffer("_known").to(table.device) > 0)
        for some in pieces(len(table)):
            table[some] = encoder.levelled(table[some].to(device)).to(table)
        encoder.train(mode)
        return table

    @torch.no_grad()
    def finish(self) -> None:
        """The snapshot that judging reads: all of it was learned before the evaluated time.

        A bank that is left as it is gets what it lacks: that an item was never written is told of no target in training
        where all are read (p = 1), so what is told of it then, and what stands for its vector, has learned nothing.
        """
        fresh = self._fresh()
        self._about = self._staleness(fresh)
        whole = self.settings.regime != "bank" or self.settings.snapshot == "refreshed"
        self._write(fresh, over=whole)

    def _staleness(self, fresh: Tensor) -> dict[str, Any]:
        """How the bank stands at the end: how much it holds, how old it is, and how near to what would be written."""
        written = self.bank.written[1:]
        known = (written >= 0).nonzero().squeeze(1) + 1
        if self.settings.regime != "bank" or not len(known):
            return {}
        clock = int(self.get_buffer("clock"))
        ages = clock - self.bank.written[known]
        parts = [known[some] for some in pieces(len(known))]
        cosines = torch.cat([F.cosine_similarity(self.bank.read(part, clock)[0], fresh[part], dim=1) for part in parts])
        return {
            "bank": {
                "steps": clock,
                "coverage": len(known) / len(written),
                "age": {"mean": float(ages.float().mean()), "most": int(ages.max())},
                "cosine": {"mean": float(cosines.mean()), "least": float(cosines.min())},
            }
        }

    def about(self) -> dict[str, Any]:
        """Of the bank, how stale it was when training ended; of the rest, the parameters of each optimiser."""
        inside = sum(p.numel() for encoder in (self.documents, self.queries) for p in encoder.parameters())
        every = sum(p.numel() for p in self.parameters())
        return {**self._about, "encoder_parameters": inside, "ranker_parameters": every - inside}

    # ------------------------------------------------------------ requests

    def prepare(self, history: Tensor, ages: Tensor) -> Prepared:
        history, ages = history[-self.reads :], ages[-self.reads :]
        lengths = torch.tensor([len(history)], device=history.device)
        history, ages = filled(history[None]), filled(ages[None])
        distinct, at = torch.unique(history, return_inverse=True)
        table, known = self._bank(distinct)
        long, recent = (
            Events.latest(at, ages, lengths, max(1, size)) for size in (self.settings.long, self.settings.recent)
        )
        short = self.short.events(self.items, history, lengths)
        return Prepared(last_events(history, lengths), table, known, long, recent, short, lengths)

    def score(self, prepared: Prepared, candidates: Tensor) -> Tensor:
        targets, known = self._bank(candidates)
        queries = self.query_vectors(prepared.anchor).expand(len(candidates), -1)
        content = Content(targets, known, queries, prepared.table, prepared.table_known, prepared.long.at)
        windows = {"long": prepared.long, "recent": prepared.recent}
        return self._rank(candidates, content, windows, prepared.short, prepared.length)

    def cells(self, prepared: Prepared) -> int:
        return self.settings.decoder_heads * (len(prepared.table) + 2 * prepared.long.at.shape[1])


def _encoder(
    content: FieldContent, reader: QueryReader, settings: LEMURSettings, first_field: bool = False
) -> TypedEncoder:
    return TypedEncoder(
        content, settings.width, reader.hidden, reader.layers, reader.heads, reader.dropout, reader.batch_tokens,
        reader.recompute, first_field, reader.pooling, settings.standardized,
    )  # fmt: skip


def last_events(histories: Tensor, lengths: Tensor) -> Tensor:
    """(rows,) the last event of each history (rows, length); 0 of an empty one."""
    return histories.gather(1, (lengths - 1).clamp(min=0)[:, None]).squeeze(1)


def _alike(vectors: Tensor) -> float:
    """Mean cosine of neighbours among vectors (n, width) of distinct items: near 1 where all have become one."""
    vectors = vectors.detach().float()
    return float(F.cosine_similarity(vectors, vectors.roll(1, 0), dim=1).mean()) if len(vectors) > 1 else 0.0


def _distinct(items: Tensor) -> tuple[Tensor, Tensor]:
    """Items (n,), each once, ascending, and where each stands first."""
    ordered, order = items.sort(stable=True)
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return ordered[first], order[first]


def _chances(refresh: str, ages: Tensor, known: Tensor, counts: Tensor) -> Tensor | None:
    """Weights by which items are drawn; None where all are alike. What the bank lacks is older than all it has."""
    if refresh == "uniform":
        return None
    oldest = ages.max().clamp(min=0) + 1
    return torch.where(known, ages, oldest).clamp(min=1).float() * counts


def _some(
    items: Tensor, draws: Tensor | None, forwarded: float, learned: float, chances: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Places of the items that are read with a gradient, and of those without: at least one with.

    `draws` (n,) are uniform between 0 and 1; without them all are read with a gradient.
    """
    count = len(items)
    if draws is None:
        return torch.arange(count, device=items.device), torch.arange(0, device=items.device)
    # the largest of log weight + Gumbel noise are a draw without replacement
    noise = -torch.log(-torch.log(draws.clamp(1e-12, 1 - 1e-7))).to(items.device)
    order = (noise if chances is None else noise + chances.log()).argsort(descending=True)
    learning = max(1, round(learned * count))
    reading = max(learning, round(forwarded * count))
    return order[:learning], order[learning:reading]
