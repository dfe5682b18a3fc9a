"""Lists for all users: what `recommend` gives each of them, in bounded memory, whole or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from pattern import ITEMS, make_run

import tessera
from tessera.artifacts.models import read_model, write_model
from tessera.artifacts.tables import read_table
from tessera.data.dataset import load_dataset
from tessera.evaluation import judge
from tessera.evaluation.ranking import ScoreError
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.train import train_run
from tessera.serving import lists
from tessera.serving.everyone import chosen_users, recommend_everyone
from tessera.settings.recommend import Recommend
from tessera.settings.runs import Run

COLUMNS = ["user", "rank", "item", "title", "score", "popular"]


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run where `tessera.load` finds its dataset."""
    root = tmp_path_factory.mktemp("world") / "results/x"
    root.mkdir(parents=True)
    (root / "data").symlink_to(data)
    path = root / "runs/s/sasrec/seed-1/model.safetensors"
    train_run(make_run(epochs=3), root / "data", RunInputs(), path, root.parent / "state")
    return path


def everyone(
    model: Path, folder: Path, stock: Path | None = None, users: Path | None = None, run: Run | None = None,
    **settings: Any,
) -> pd.DataFrame:  # fmt: skip
    output, csv = folder / "lists.parquet", folder / "lists.csv"
    recommend_everyone(
        run or make_run(), Recommend.model_validate(settings), model, model.parents[4] / "data", RunInputs(), stock,
        users, output, csv,
    )  # fmt: skip
    found = read_table(output, "recommendations").to_pandas()
    same = pd.read_csv(csv, keep_default_na=False)
    assert list(found.columns) == list(same.columns) == COLUMNS
    pd.testing.assert_frame_equal(found, same, check_dtype=False, rtol=1e-5)
    return found


def test_every_user_gets_what_recommend_gives_after_all_that_is_known(model: Path, tmp_path: Path) -> None:
    found = everyone(model, tmp_path, k=4)
    recommender = tessera.load(model.parent)
    dataset = load_dataset(model.parents[4] / "data")
    assert found.user.drop_duplicates().tolist() == [f"u{user}" for user in range(1, dataset.n_users + 1)]
    assert not found.popular.any()
    for user in range(1, dataset.n_users + 1):
        history = [f"i{item}" for item in dataset.items[dataset.offsets[user - 1] : dataset.offsets[user]]]
        own = found[found.user == f"u{user}"]
        expected = recommender.recommend(history, k=4)
        assert own.item.tolist() == expected.item.tolist()
        assert own.title.tolist() == expected.title.tolist()
        assert own.score.tolist() == pytest.approx(expected.score.tolist(), rel=1e-4, abs=1e-5)
        assert own["rank"].tolist() == list(range(1, len(own) + 1))
        assert not set(own.item) & set(history)
    assert set(everyone(model, tmp_path, k=ITEMS, seen=True).groupby("user").size()) == {ITEMS}


def test_lists_that_leave_out_what_was_judged_are_told(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A shop whose users come back, and whose lists do not: the numbers of the table are of other lists."""
    judged_with_seen = make_run().model_copy(update={"mask_seen": False})
    everyone(model, tmp_path, k=2, run=judged_with_seen, seen=True)
    everyone(model, tmp_path, k=2)
    assert "evaluation.mask_seen" not in caplog.text
    everyone(model, tmp_path, k=2, run=judged_with_seen)
    assert "s/sasrec/seed-1 was judged with seen items among those that are ranked (evaluation.mask_seen: false)" in (
        caplog.text
    )


def test_blocks_change_nothing(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = everyone(model, tmp_path)
    monkeypatch.setattr(judge, "MOST_USERS", 7)
    monkeypatch.setattr("tessera.serving.everyone.ROWS_A_GROUP", 100)
    # another batch is another order of sums; scores near 0 differ by as much as all others
    pd.testing.assert_frame_equal(everyone(model, tmp_path), expected, rtol=1e-4, atol=1e-5)


def test_filters_and_users_from_files(model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stock, users = tmp_path / "stock.txt", tmp_path / "users.txt"
    stock.write_bytes("\ufeffi3\r\ni5\n\ni30\nSKU\ni3\n".encode())
    users.write_text("u9\nstranger\nu2\n")
    found = everyone(model, tmp_path, stock, users, seen=True)
    assert found.user.drop_duplicates().tolist() == ["u9", "stranger", "u2"]
    assert set(found.item) == {"i3", "i5", "i30"}
    assert found.groupby("user").popular.all().to_dict() == {"u9": False, "stranger": True, "u2": False}
    popularity = load_dataset(model.parents[4] / "data").train_counts
    strangers = found[found.user == "stranger"]
    assert strangers.score.tolist() == sorted((float(popularity[item]) for item in (3, 5, 30)), reverse=True)
    assert "1 of 3 users have no history ('stranger')" in caplog.text
    assert "1 of 4: unknown item 'SKU'" in caplog.text


def test_users_of_a_list_are_known_however_a_whole_number_is_written(tmp_path: Path) -> None:
    users = tmp_path / "users.txt"
    users.write_text("12.0\n11\nnan\n13\n")
    wanted, dense = chosen_users(["", "11", "12", "13.0"], users)
    assert wanted == ["12.0", "11", "nan", "13"]
    assert dense.tolist() == [2, 1, 0, 3]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"\n \n", "is empty; expected one item id a line"),
        (b"\xff\xfe\x00", "no UTF-8 text"),
        (b"x\ny\n", "unknown items"),
    ],
)
def test_a_wrong_list_is_told_with_its_file(text: bytes, told: str, model: Path, tmp_path: Path) -> None:
    stock = tmp_path / "stock.txt"
    stock.write_bytes(text)
    with pytest.raises(ValueError, match=rf"stock.txt: .*{told}"):
        everyone(model, tmp_path, stock)
    assert [path.name for path in tmp_path.iterdir()] == ["stock.txt"]


def test_nothing_is_half_written(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = everyone(model, tmp_path)
    tensors, description = read_model(model)
    tensors["items.weight"][5] = torch.nan
    broken = model.parents[1] / "seed-2/model.safetensors"
    write_model(broken, tensors, description)
    monkeypatch.setattr(judge, "MOST_USERS", 7)
    with pytest.raises(ScoreError, match="is NaN"):
        everyone(broken, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lists.csv", "lists.parquet"]
    pd.testing.assert_frame_equal(read_table(tmp_path / "lists.parquet", "recommendations").to_pandas(), before)


MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np, pyarrow as pa, torch
torch.set_num_threads(1)
from tessera.artifacts.models import write_model
from tessera.artifacts.tables import write_table
from tessera.recommenders.inputs import RunInputs
from tessera.serving.everyone import recommend_everyone
from tessera.settings.recommend import Recommend
from tessera.settings.runs import Run
folder, users, items, run = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Run.model_validate_json(sys.argv[4])
rng = np.random.default_rng(0)
owners = np.repeat(np.arange(1, users + 1), 4)
n = len(owners)
rows = {"user": owners, "item": rng.integers(1, items + 1, n), "position": np.tile(np.arange(4), users)}
rows |= {"timestamp": pa.nulls(n, pa.int64()), "rating": pa.nulls(n, pa.float32()), "split": ["train"] * n}
write_table(folder / "interactions.parquet", pa.table(rows), "interactions")
names = [f"i{item}" for item in range(1, items + 1)]
told = {"attributes": pa.array([[]] * items, pa.map_(pa.string(), pa.string())), "image": pa.nulls(items, pa.string())}
told |= {"item": range(1, items + 1), "raw_id": names, "title": names}
write_table(folder / "items.parquet", pa.table(told), "items")
ids = [f"u{user}" for user in range(1, users + 1)]
write_table(folder / "users.parquet", pa.table({"user": range(1, users + 1), "raw_id": ids}), "users")
counts = {"counts": torch.from_numpy(rng.random(items + 1).astype(np.float32))}
write_model(folder / "model.safetensors", counts, {"items": items})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
out = folder / "lists.parquet", folder / "lists.csv"
recommend_everyone(run, Recommend(), folder / "model.safetensors", folder, RunInputs(), None, None, *out)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_memory_is_bounded(tmp_path: Path) -> None:
    users, items = 12_000, 40_000
    run = make_run(system={"recommender": "popular"}).canonical()
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path), str(users), str(items), run],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    grown = float(done.stdout)
    assert read_table(tmp_path / "lists.parquet", "recommendations", ["user"]).num_rows == 10 * users
    # all scores at once would be 1,831 MiB
    assert grown < 600, grown
    assert users * items * 4 / 2**20 > 3 * 600


@pytest.mark.parametrize("kind", ["different", "equals", "one score", "mostly masked", "masked"])
@pytest.mark.parametrize(("items", "k"), [(3, 5), (5, 5), (40, 5), (3000, 10)])
def test_the_best_are_those_of_a_whole_sort_and_equals_go_by_id(items: int, k: int, kind: str) -> None:
    torch.manual_seed(items)
    scores = torch.randn(7, items)
    if kind == "equals":
        scores = (2 * scores).round()
    if kind == "one score":
        scores = torch.ones(7, items)
    if kind.endswith("masked"):
        scores[:, 0 if kind == "masked" else 2 :] = -torch.inf
    ids, values = lists.best(scores, k)
    assert ids.shape == values.shape == (7, k)
    for row, given in enumerate(scores.tolist()):
        order = sorted(range(items), key=lambda item: (-given[item], item))[:k]
        wanted = [item + 1 if given[item] > -float("inf") else 0 for item in order]
        assert ids[row].tolist() == wanted + [0] * (k - len(wanted))
        assert values[row].tolist() == [given[item] for item in order] + [-float("inf")] * (k - len(order))
