"""Users with several vectors: what each of them stands for, by its nearest items."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tessera.artifacts.tables import ArtifactError
from tessera.evaluation.spread import spread
from tessera.reporting.ranking import RankingTable
from tessera.reporting.ranking_runs import RankingRun
from tessera.reporting.runs import label
from tessera.reporting.samples import HISTORY_SHOWN, Catalogue, ItemCard, histories, raw_ids

SYSTEMS = 3
"""Systems that are shown, the best ones: the page holds a picture for every item of every vector."""


@dataclass(frozen=True)
class OwnVector:
    """One vector of a user."""

    items: list[tuple[ItemCard, bool]]
    """Its nearest items, and whether each is the target."""
    recommended: int
    """Recommendations that have their score from it."""
    of_target: bool
    """Whether it gives the target its score."""


@dataclass(frozen=True)
class ManyVectors:
    """A test user as a system with several vectors sees it."""

    raw_id: str
    length: int
    history: list[ItemCard]
    """The end of the history, oldest first."""
    target: ItemCard
    vectors: list[OwnVector]


@dataclass(frozen=True)
class VectorSection:
    """What the page says of users' vectors."""

    systems: list[tuple[str, list[ManyVectors]]]
    """Name of a system and some of its users, by its first seed."""
    others: list[str]
    """Systems with several vectors a user that are not shown."""


def user_vectors(catalogue: Catalogue, users: Path, table: RankingTable, main: str, most: int) -> VectorSection | None:
    """The users of the best systems that have several vectors a user; None where there is no such system.

    Args:
        users: users.parquet.
        main: the metric that says which systems are best.
        most: users of a system.
    """
    having = [entry for entry in table.ranked(main) if entry.runs[0].user_vectors]
    if not having or not most:
        return None
    shown = [(label(entry), _users(catalogue, users, entry.runs[0], most)) for entry in having[:SYSTEMS]]
    return VectorSection(shown, [label(entry) for entry in having[SYSTEMS:]])


def _users(catalogue: Catalogue, users: Path, run: RankingRun, most: int) -> list[ManyVectors]:
    told = [run.user_vectors[number] for number in spread(len(run.user_vectors), most)]
    chosen = [one["user"] for one in told]
    raw, past = raw_ids(users, chosen), histories(catalogue, chosen)
    judged = run.evaluation("user", "item")
    targets = dict(zip(*(judged.column(name).to_pylist() for name in ("user", "item")), strict=True))
    made = []
    for one in told:
        user = one["user"]
        if user not in targets or user not in raw:
            raise ArtifactError(f"{run.path}: tells of the vectors of user {user}, who was not judged")
        vectors = [
            OwnVector(
                [(catalogue.card(item), item == targets[user]) for item in vector["items"]],
                vector["recommended"],
                number == one["of_target"],
            )
            for number, vector in enumerate(one["vectors"])
        ]
        cards = [catalogue.card(item) for item in past[user][-HISTORY_SHOWN:]]
        made.append(ManyVectors(raw[user], len(past[user]), cards, catalogue.card(targets[user]), vectors))
    return made
