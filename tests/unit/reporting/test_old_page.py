"""The page that was there before stays, and counts as out of date."""

from __future__ import annotations

from pathlib import Path

import pytest

from tessera.reporting.old_page import bring_back, old_page_kept


def test_a_page_that_is_made_leaves_nothing_behind(tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    for text in ("first", "second"):
        with old_page_kept(page):
            page.write_text(text)
        assert [path.name for path in tmp_path.iterdir()] == ["index.html"]
        before = page.stat().st_mtime
        bring_back(page)
        assert (page.read_text(), page.stat().st_mtime) == (text, before)


@pytest.mark.parametrize("left", [True, False])
def test_the_old_page_comes_back_out_of_date(tmp_path: Path, left: bool) -> None:
    page = tmp_path / "index.html"
    page.write_text("old")
    with pytest.raises(ValueError, match="no page"), old_page_kept(page):
        raise ValueError("no page")
    if not left:  # what a cluster does after a job that failed
        page.unlink()
    bring_back(page)
    assert page.read_text() == "old"
    assert page.stat().st_mtime == 1
    with old_page_kept(page):
        page.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_another_start_while_a_page_is_made_takes_nothing_away(tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    page.write_text("old")
    with pytest.raises(ValueError, match="no page"):
        _fails_beside_another_start(page)
    bring_back(page)
    assert page.read_text() == "old"
    assert page.stat().st_mtime == 1


def _fails_beside_another_start(page: Path) -> None:
    with old_page_kept(page):
        bring_back(page)  # of another process
        page.unlink()  # what a cluster does
        raise ValueError("no page")


def test_a_new_page_is_not_taken_for_the_old_one(tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    page.write_text("old")
    with old_page_kept(page):
        page.write_text("new")
        made = page.stat().st_mtime
        bring_back(page)  # of another process, before the copy is gone
    assert (page.read_text(), page.stat().st_mtime) == ("new", made)
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_without_an_old_page(tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    with pytest.raises(ValueError, match="no page"), old_page_kept(page):
        raise ValueError("no page")
    bring_back(page)
    assert not list(tmp_path.iterdir())
