"""Items and test users to look at: chosen by rule, never by hand, so that good and bad cases both show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tessera.artifacts.shown import one_line
from tessera.artifacts.tables import image_root, read_table
from tessera.evaluation.spread import spread
from tessera.reporting.pictures import Pictures
from tessera.reporting.runs import Entry, label

if TYPE_CHECKING:
    from tessera.reporting.ranking_runs import RankingRun

HISTORY_SHOWN = 5
RECOMMENDED_SHOWN = 6
_TEXT_SHOWN = 180
_TITLE_SHOWN = 300
_NAME_SHOWN = 80
_ID_SHOWN = 120


@dataclass(frozen=True)
class ItemCard:
    """An item as a person sees it."""

    item: int
    raw_id: str
    title: str
    attributes: list[tuple[str, str]]
    picture: str | None
    """A data URI."""
    count: int
    """Training interactions."""


@dataclass(frozen=True)
class Recommended:
    """What one run gave one user."""

    run: str
    rank: float
    items: list[tuple[ItemCard, bool]]
    """Cards, and whether that item is the target."""


@dataclass(frozen=True)
class UserCard:
    """A test user: what is known, what came next, what the runs thought."""

    raw_id: str
    length: int
    history: list[ItemCard]
    """The end of the history, oldest first."""
    target: ItemCard
    lists: list[Recommended]


class Catalogue:
    """Item cards of one dataset on demand."""

    def __init__(self, data: Path) -> None:
        path = data / "items.parquet"
        self.table = read_table(path, "items")
        self.image_root = image_root(path)
        self.pictures = Pictures(self.image_root)
        ids = self.table.column("item").to_numpy()
        self._row = {int(item): row for row, item in enumerate(ids)}
        self.interactions = read_table(
            data / "interactions.parquet", "interactions", ["user", "item", "position", "split"]
        )
        trained = pc.equal(self.interactions.column("split"), "train")
        items = self.interactions.column("item").filter(trained).to_numpy()
        self.counts = np.bincount(items, minlength=int(ids.max(initial=0)) + 1)
        self._cards: dict[int, ItemCard] = {}

    def card(self, item: int) -> ItemCard:
        """The card of a dense id."""
        if item not in self._cards:
            row = self.table.slice(self._row[item], 1).to_pylist()[0]
            pairs = row["attributes"] or []
            attributes = [(one_line(name, _NAME_SHOWN), one_line(text, _TEXT_SHOWN)) for name, text in pairs if text]
            self._cards[item] = ItemCard(
                item,
                one_line(row["raw_id"], _ID_SHOWN),
                one_line(row["title"] or "", _TITLE_SHOWN),
                attributes,
                self.pictures.uri(row["image"]),
                int(self.counts[item]),
            )
        return self._cards[item]


def sample_items(catalogue: Catalogue, wanted: int) -> list[ItemCard]:
    """Items spread evenly over the popularity order, so that head and tail show in their true shares."""
    ids: NDArray[np.int32] = catalogue.table.column("item").to_numpy()
    order = ids[np.lexsort((ids, -catalogue.counts[ids]))]
    return [catalogue.card(int(order[place])) for place in spread(len(order), wanted)]


def sample_users(catalogue: Catalogue, users: Path, shown: Sequence[Entry[RankingRun]], wanted: int) -> list[UserCard]:
    """Test users spread evenly over the rank of the target under the last of the runs shown.

    Args:
        users: users.parquet.
        shown: entries whose recommendations are shown, by their first seed.
    """
    if not shown or not wanted:
        return []
    tables = {label(entry): entry.runs[0].evaluation("user", "item", "rank", "recommended") for entry in shown}
    common = set.intersection(*(set(table.column("user").to_pylist()) for table in tables.values()))
    leader = tables[label(shown[-1])]
    leader = leader.filter(pc.is_in(leader.column("user"), pa.array(sorted(common), pa.int32())))
    order = leader.sort_by([("rank", "ascending"), ("user", "ascending")])
    chosen = [order.slice(place, 1).to_pylist()[0] for place in spread(len(order), wanted)]
    raw = raw_ids(users, [row["user"] for row in chosen])
    past = histories(catalogue, [row["user"] for row in chosen])
    return [_user_card(catalogue, raw[row["user"]], row["user"], past, row["item"], tables) for row in chosen]


def raw_ids(path: Path, users: Sequence[int]) -> dict[int, str]:
    """User -> raw id, as it may be shown."""
    table = read_table(path, "users")
    table = table.filter(pc.is_in(table.column("user"), pa.array(users, pa.int32())))
    shown = (one_line(raw_id, _ID_SHOWN) for raw_id in table.column("raw_id").to_pylist())
    return dict(zip(table.column("user").to_pylist(), shown, strict=True))


def histories(catalogue: Catalogue, users: Sequence[int]) -> dict[int, list[int]]:
    """User -> the items before the test interaction, oldest first; an empty list for a user without any."""
    rows = catalogue.interactions.filter(
        pc.is_in(catalogue.interactions.column("user"), pa.array(users, pa.int32()))
    ).sort_by([("user", "ascending"), ("position", "ascending")])
    past: dict[int, list[int]] = {user: [] for user in users}
    ended: set[int] = set()
    for user, item, split in zip(*(rows.column(name).to_pylist() for name in ("user", "item", "split")), strict=True):
        if split == "test":
            ended.add(user)
        if user not in ended:
            past[user].append(item)
    return past


def _user_card(
    catalogue: Catalogue,
    raw_id: str,
    user: int,
    past: Mapping[int, list[int]],
    target: int,
    tables: dict[str, pa.Table],
) -> UserCard:
    history = past[user]
    lists = []
    for name, table in tables.items():
        row = table.filter(pc.equal(table.column("user"), user)).to_pylist()[0]
        items = [(catalogue.card(item), item == target) for item in row["recommended"][:RECOMMENDED_SHOWN]]
        lists.append(Recommended(name, row["rank"], items))
    cards = [catalogue.card(item) for item in history[-HISTORY_SHOWN:]]
    return UserCard(raw_id, len(history), cards, catalogue.card(target), lists)
