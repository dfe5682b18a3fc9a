"""Users with several vectors on the page: each vector by its nearest items, of the best systems that have several."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from reporting_world import EVIL_USER, ITEMS, ORDER, metric_files

from tessera.artifacts.tables import ArtifactError
from tessera.reporting.page import NOT_TOLD
from tessera.reporting.ranking import collect
from tessera.reporting.ranking_page import build
from tessera.reporting.samples import Catalogue
from tessera.reporting.user_vectors import SYSTEMS, VectorSection, user_vectors
from tessera.settings.evaluation import Evaluation, Significance
from tessera.settings.reporting import Report

NAMES = ["id/gru4rec", "id/sasrec", "semantic/sasrec"]


@pytest.fixture
def tree(results: Path, tmp_path: Path) -> Path:
    target = tmp_path / "results"
    shutil.copytree(results, target)
    return target


def tell(tree: Path, name: str, users: int = 4, first: int = 1) -> None:
    """A run tells of the vectors of some users: vector k of user u is near to the items u + k, u + k + 1."""
    for path in (tree / "bazaar/runs" / name).glob("seed-*/metrics.json"):
        told = [
            {
                "user": user,
                "of_target": user % 3,
                "vectors": [
                    {"items": [(user + k + n) % ITEMS + 1 for n in range(2)], "recommended": 4 + k} for k in range(3)
                ],
            }
            for user in range(first, first + users)
        ]
        path.write_text(json.dumps(json.loads(path.read_text()) | {"user_vectors": told}))


def section(tree: Path, most: int = 4) -> VectorSection | None:
    table = collect("bazaar", metric_files(tree), ORDER, Evaluation(), Significance(resamples=100))
    return user_vectors(Catalogue(tree / "bazaar/data"), tree / "bazaar/data/users.parquet", table, "NDCG@10", most)


def test_nobody_has_several(tree: Path) -> None:
    assert section(tree) is None
    tell(tree, NAMES[0])
    assert section(tree, 0) is None


def test_the_best_systems_show_each_vector_by_its_items(tree: Path) -> None:
    tell(tree, NAMES[0])
    tell(tree, NAMES[2])
    made = section(tree, 2)
    assert made is not None
    assert [name for name, _ in made.systems] == ["semantic/sasrec", "id/gru4rec"]
    assert made.others == []
    users = made.systems[0][1]
    assert [user.raw_id for user in users] == ["user-2", "user-4"]  # spread over those that are told of
    run = next(path for path in metric_files(tree) if "semantic/sasrec/seed-1" in str(path))
    assert json.loads(run.read_text())["user_vectors"][1]["user"] == 2
    assert [[card.item for card, _ in vector.items] for vector in users[0].vectors] == [[3, 4], [4, 5], [5, 6]]
    assert [vector.of_target for vector in users[0].vectors] == [False, False, True]
    assert [vector.recommended for vector in users[0].vectors] == [4, 5, 6]
    for user in users:
        for vector in user.vectors:
            assert [hit for _, hit in vector.items] == [card.item == user.target.item for card, _ in vector.items]


def test_more_systems_than_a_page_holds_are_named(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        tell(tree, name)
    assert SYSTEMS == 3
    monkeypatch.setattr("tessera.reporting.user_vectors.SYSTEMS", 1)
    made = section(tree)
    assert made is not None
    assert ([name for name, _ in made.systems], made.others) == (["semantic/sasrec"], ["id/sasrec", "id/gru4rec"])


def test_somebody_who_was_not_judged_is_refused(tree: Path) -> None:
    tell(tree, NAMES[1], first=900)
    with pytest.raises(ArtifactError, match=r"seed-1/metrics.json: tells of the vectors of user 900, who was not"):
        section(tree)


def test_the_page(tree: Path) -> None:
    tell(tree, NAMES[1])
    page = tree / "report" / "index.html"
    runs = {"bazaar": [str(path.parent.relative_to(tree / "bazaar/runs")) for path in metric_files(tree)]}
    build(page, Report(), runs, {}, tree, made=NOT_TOLD)
    text = page.read_text(encoding="utf-8")
    block = text[text.index('-vectors">Users with several vectors') :]
    assert block.count("<h5>Vector ") == 12
    assert block.count("; best for the target") == 4
    assert "<h5>Vector 3 <span>6 of the recommendations" in block
    assert EVIL_USER not in block  # user 1 is among them
