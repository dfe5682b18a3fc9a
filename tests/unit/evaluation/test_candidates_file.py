"""Published candidates whose users or items are not those of the dataset."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from tessera.artifacts.tables import ArtifactError
from tessera.data.dataset import Cases
from tessera.evaluation.candidates import check_all_users, parse_candidates
from tessera.evaluation.histories import Histories
from tessera.evaluation.judge import rank_cases
from tessera.settings.evaluation import Evaluation

USERS = ["", "u1", "u2", "u3", "u4", "u5"]
ITEMS = ["", "1", "2", "3"]


def parsed(tmp_path: Path, text: str | bytes) -> list[dict[str, object]]:
    (tmp_path / "negatives.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    rows: list[dict[str, object]] = parse_candidates(tmp_path / "negatives.txt", USERS, ITEMS).to_pylist()
    return rows


def test_users_of_other_datasets_are_passed_over_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert parsed(tmp_path, "u2 1 3\nstranger 9 9\n\nu1 2\n") == [
        {"user": 2, "items": [1, 3]},
        {"user": 1, "items": [2]},
    ]
    assert "WARNING" in caplog.text
    assert "meets 2 of 5 users (40.0%); not met: 'u3', 'u4', 'u5'; in the file alone: 'stranger'" in caplog.text


def test_no_user_or_no_item_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"meets 0 of 5 users .*in the file alone: '1', '2'; 2 more would meet"):
        parsed(tmp_path, "1 1 2\n2 3\n")
    with pytest.raises(ArtifactError, match=r"meets 0 of 3 items .*: '01', '02'; 2 more would meet without the zeros"):
        parsed(tmp_path, "u1 01 02\n")


def test_negatives_that_are_not_there_are_counted(tmp_path: Path) -> None:
    message = (
        r"line 2: item 'x' is not in the dataset; nor are 2 more of the file's 6 negatives .*alone: 'x', 'y'; in the"
    )
    with pytest.raises(ArtifactError, match=message):
        parsed(tmp_path, "u1 1 2\nu2 x 2\nu3 x y\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("u1 1 2\n\nu2 3\nu1 3\n", "line 4: user 'u1' has line 1, too"),
        ("u1 1 2\nu2 2 3 2\n", "line 2: user 'u2' has the item '2' 2 times"),
        ("u1 1 2\nu3\n", "line 2: user 'u3' has no negatives"),  # nothing but the target: everybody would hit it
    ],
)
def test_doubles_and_empty_lines_are_refused(tmp_path: Path, text: str, said: str) -> None:
    expected = "expected `user negative negative ...`, one line a user, each negative once"
    with pytest.raises(ArtifactError, match=f"negatives.txt: {re.escape(said)}; {re.escape(expected)}"):
        parsed(tmp_path, text)


def test_a_judged_user_needs_a_line_and_a_negative_and_is_named_as_in_the_file(tmp_path: Path) -> None:
    users, targets = np.array([1, 2, 4], np.int32), np.array([3, 1, 2], np.int32)
    cases = Cases(users, targets, np.arange(4), np.array([1, 2, 3], np.int32))

    def check(text: str) -> None:
        (tmp_path / "negatives.txt").write_text(text)
        path = tmp_path / "negatives.txt"
        check_all_users(path, parse_candidates(path, USERS, ITEMS), cases, USERS)

    check("u1 3 1\nu2 2\nu4 1 3\n")
    with pytest.raises(ArtifactError, match=r"txt: 2 of 3 test users have no line, the first is 'u2'; expected `user"):
        check("u1 1 2\nu3 1\n")
    with pytest.raises(ArtifactError, match=r"1 of 3 test users have no negative but the target itself, .* 'u2'; exp"):
        check("u1 3 1\nu2 1\nu4 1 3\n")


def test_a_byte_order_mark_is_part_of_no_user(tmp_path: Path) -> None:
    text = "u1 1 2\r\nu2 3\r\n"
    assert parsed(tmp_path, text.encode("utf-8-sig")) == parsed(tmp_path, text)
    assert len(parsed(tmp_path, text)) == 2
    with pytest.raises(ArtifactError, match=r"negatives.txt: no UTF-8 text \(byte 10\); expected `user negative"):
        parsed(tmp_path, b"u1 1 2\nu2 \xff\n")


class Falling:
    """Item 1 first, item 10 last."""

    max_history = None

    def __call__(self, histories: Histories) -> torch.Tensor:
        return torch.arange(10.0, 0.0, -1.0).expand(len(histories), -1).clone()


@pytest.mark.parametrize("mask_seen", [True, False])
def test_negatives_of_the_users_own_history_are_ranked_as_they_are_given(mask_seen: bool) -> None:
    """Masked ones would count as beaten, and flatter every system."""
    history, negatives = np.array([1, 2, 3], np.int32), np.array([[1, 2, 3, 9]])
    cases = Cases(np.array([1], np.int32), np.array([6], np.int32), np.array([0, 3]), history)
    settings = Evaluation.model_validate({"candidates": {"kind": "file", "path": "x"}, "mask_seen": mask_seen})
    ranked = rank_cases(Falling(), cases, settings, negatives)
    assert (ranked.ranks.tolist(), ranked.candidates.tolist()) == ([4.0], [5])
