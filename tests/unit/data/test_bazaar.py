"""The demo world: same seed, same files; the process is what it says; each channel knows what the other does not."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tessera.artifacts.tables import describe, image_root, read_table
from tessera.data.bazaar.attributes import COLOURS, IMAGE, PATTERNS, SHAPES, SIZES, VALUES
from tessera.data.bazaar.generate import generate
from tessera.data.bazaar.histories import (
    CHUNK,
    SHORTEST,
    Histories,
    Sampler,
    component_shares,
    draw_histories,
    next_item_probabilities,
)
from tessera.data.bazaar.log import REASONS, write_log
from tessera.data.bazaar.pictures import SIDE, draw_picture
from tessera.data.bazaar.text import write_texts
from tessera.data.bazaar.world import DAY, INTERESTS, OPENING, YEARS, World, build_world
from tessera.settings.config import ConfigError, load
from tessera.settings.sources.bazaar import BazaarSource

SMALL = BazaarSource(users=200, items=150, tastes=30, missing=0.1, duplicated=0.05, malformed=0.04)


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(SMALL)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bazaar") / "raw"
    generate(SMALL, folder)
    return folder


def whole_histories(settings: BazaarSource) -> list[Histories]:
    sampler = Sampler(build_world(settings))
    return [draw_histories(sampler, chunk, record=True) for chunk in range(-(-settings.users // CHUNK))]


def test_same_seed_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files: list[dict[Path, bytes]] = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        generate(SMALL, "raw")
        made = {*Path("raw").rglob("*.*")} - {Path("raw/pictures.json")}  # which tells when they were drawn
        files.append({path: path.read_bytes() for path in sorted(made)})
    assert files[0] == files[1]
    assert len([path for path in files[0] if path.suffix == ".png"]) > 100


def test_another_seed_gives_another_world(world: World) -> None:
    other = build_world(SMALL.model_copy(update={"seed": 8}))
    assert not np.array_equal(other.latents["colour"], world.latents["colour"])
    assert not np.array_equal(other.rows, world.rows)


def test_counts_are_what_the_settings_say(raw: Path) -> None:
    interactions = read_table(raw / "interactions.parquet", "raw_interactions")
    rejected = read_table(raw / "rejected.parquet", "rejected")
    users = interactions.column("user").unique()
    rows = interactions.column("row").to_numpy()
    assert len(users) == SMALL.users
    assert read_table(raw / "items.parquet", "raw_items").num_rows == SMALL.items
    assert len(np.unique(rows)) == len(rows)
    # every line of the log is a readable row or a rejected one
    lines = np.sort(np.concatenate([rows + 1, rejected.column("line").to_numpy()]))
    assert np.array_equal(lines, np.arange(1, len(lines) + 1))
    assert 0.02 < rejected.num_rows / len(lines) < 0.06
    assert set(rejected.column("reason").to_pylist()) <= set(REASONS)
    assert describe(raw / "items.parquet")["image_root"] == "./raw/images"
    assert image_root(raw / "items.parquet") == str(raw / "images")


def test_some_rows_stand_twice_and_nothing_else_repeats(raw: Path) -> None:
    table = read_table(raw / "interactions.parquet", "raw_interactions").select(["user", "item", "timestamp"])
    rows = [tuple(row.values()) for row in table.to_pylist()]
    twice = len(rows) - len(set(rows))
    assert 0.03 < twice / len(rows) < 0.07
    assert len({(user, item) for user, item, _ in rows}) == len(set(rows))  # an item never comes twice


def test_mean_history_and_long_tail() -> None:
    told = whole_histories(BazaarSource(users=3000))[0]
    assert told.length.min() >= 5
    assert abs(told.length.mean() - 12) < 1
    counts = np.sort(np.bincount(told.items[told.items >= 0], minlength=1200))[::-1]
    assert counts[:240].sum() > 0.42 * counts.sum()  # the head, a fifth of the items
    assert counts[0] > 8 * np.median(counts)


def test_timestamps_follow_the_process(world: World) -> None:
    told = draw_histories(Sampler(world), 0)
    block = write_log(world, told, 0, first_line=1)
    table = block.interactions.sort_by([("user", "ascending"), ("timestamp", "ascending"), ("row", "ascending")])
    items = np.array([int(raw_id[1:]) for raw_id in table.column("item").to_pylist()])
    users = np.array([int(raw_id[1:]) for raw_id in table.column("user").to_pylist()])
    for place in (0, 17, len(told.user) - 1):
        found = items[users == told.user[place]]
        once = found[np.concatenate([[True], found[1:] != found[:-1]])]
        assert np.array_equal(once, told.items[place, : told.length[place]])


def test_more_users_leave_the_first_ones_alone() -> None:
    few = whole_histories(SMALL.model_copy(update={"users": CHUNK}))[0]
    more = whole_histories(SMALL.model_copy(update={"users": CHUNK + 10}))
    assert np.array_equal(few.items, more[0].items)
    assert len(more[1].user) == 10


def test_shares_sum_to_one() -> None:
    weights = np.array([[0.5, 0.3, 0.2, 0.0], [1.0, 0.0, 0.0, 0.0]])
    for first in (True, False):
        assert np.allclose(component_shares(SMALL, weights, first).sum(1), 1)


@pytest.mark.parametrize("step", [0, 1, 12])
def test_probabilities_are_those_of_the_process(world: World, step: int) -> None:
    """100,000 draws from one state against the closed form, by a chi-square statistic."""
    told = draw_histories(Sampler(world), 0, record=True)
    assert told.tastes is not None
    assert told.weights is not None
    user, draws = 3, 100_000
    seen = told.items[user, :step]
    tastes, weights = told.tastes[user, step], told.weights[user, step]
    odds = next_item_probabilities(world, tastes, weights, int(seen[-1]) if step else None, seen)
    assert odds.sum() == pytest.approx(1)
    assert (odds[seen] == 0).all()
    drawn = Sampler(world).step(
        np.tile(tastes, (draws, 1)),
        np.tile(weights, (draws, 1)),
        np.full(draws, seen[-1]) if step else None,
        np.tile(seen, (draws, 1)),
        np.random.default_rng(0),
    )
    counts = np.bincount(drawn, minlength=world.items)
    assert (counts[odds == 0] == 0).all()
    likely = odds * draws > 5
    statistic = ((counts - odds * draws)[likely] ** 2 / (odds * draws)[likely]).sum()
    freedom = likely.sum()
    assert statistic < freedom + 5 * np.sqrt(2 * freedom)


LATE = SMALL.model_copy(update={"late": 0.4, "users": 600, "malformed": 0.0})


def test_nobody_has_an_item_before_it_opens(tmp_path: Path) -> None:
    generate(LATE, tmp_path)
    world = build_world(LATE)
    assert 0.25 < (world.opens > 0).mean() < 0.55
    half = OPENING + YEARS * 365 * DAY // 2
    assert (world.opens[world.opens > 0] >= half).all()
    table = read_table(tmp_path / "interactions.parquet", "raw_interactions")
    items = np.array([int(raw_id[1:]) for raw_id in table.column("item").to_pylist()])
    times = table.column("timestamp").to_numpy()
    assert (times >= world.opens[items]).all()
    assert (times[world.opens[items] > 0] > half).any()
    # more of the late ones come the later it is
    shares = [(world.opens[items[part]] > 0).mean() for part in np.array_split(np.argsort(times), 4)]
    assert shares == sorted(shares)
    assert shares[0] == 0
    # what the log says is the time that the process knew
    truth = read_table(tmp_path / "truth.parquet", "truth")
    said = set(zip(*(truth.column(name).to_pylist() for name in ("user", "item", "timestamp")), strict=True))
    assert said == set(zip(*(table.column(name).to_pylist() for name in ("user", "item", "timestamp")), strict=True))


@pytest.mark.parametrize("keys", [{"items": 150, "mean_history": 60.0, "late": 0.5}, {"items": 100, "late": 0.9}])
def test_nobody_has_all_that_is_open(keys: dict[str, float], tmp_path: Path) -> None:
    generate(SMALL.model_copy(update={"users": 300, "malformed": 0.0, **keys}), tmp_path)
    table = read_table(tmp_path / "interactions.parquet", "raw_interactions")
    assert min(Counter(table.column("user").to_pylist()).values()) >= SHORTEST


def test_too_few_items_that_are_open_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"late: 0\.9 of 20 items leaves . that are there from the start"):
        generate(SMALL.model_copy(update={"items": 20, "late": 0.9}), tmp_path)


def test_without_late_items_all_are_open(world: World) -> None:
    assert not world.opens.any()
    state = np.array([0, 1, 2, 3]), np.array([0.4, 0.3, 0.2, 0.1]), 5, np.array([5])
    np.testing.assert_array_equal(
        next_item_probabilities(world, *state), next_item_probabilities(world, *state, now=OPENING)
    )


def test_draws_of_a_world_with_late_items_are_the_closed_form() -> None:
    late = build_world(LATE)
    draws, now = 100_000, int(np.quantile(late.opens[late.opens > 0], 0.5))
    tastes, weights, seen = np.array([0, 1, 2, 3]), np.array([0.4, 0.3, 0.2, 0.1]), np.array([7, 5])
    odds = next_item_probabilities(late, tastes, weights, 5, seen, now)
    assert (odds[late.opens > now] == 0).all()
    assert (odds[(late.opens > 0) & (late.opens <= now)] > 0).any()
    assert odds.sum() == pytest.approx(1)
    drawn = Sampler(late).step(
        np.tile(tastes, (draws, 1)), np.tile(weights, (draws, 1)), np.full(draws, 5), np.tile(seen, (draws, 1)),
        np.random.default_rng(0), np.full(draws, now),
    )  # fmt: skip
    counts = np.bincount(drawn, minlength=late.items)
    assert (counts[odds == 0] == 0).all()
    likely = odds * draws > 5
    statistic = ((counts - odds * draws)[likely] ** 2 / (odds * draws)[likely]).sum()
    assert statistic < likely.sum() + 5 * np.sqrt(2 * likely.sum())


def test_a_user_who_has_seen_all_the_likely_items_still_gets_one(world: World) -> None:
    """Redrawing gives up after some rounds; the closed form takes over."""
    taste = world.rows[0]
    seen = np.argsort(-(taste + world.weight))[: world.items - 3]
    found = Sampler(world).step(
        np.zeros((50, INTERESTS), np.int64),
        np.tile([1.0, 0, 0, 0], (50, 1)),
        None,
        np.tile(seen, (50, 1)),
        np.random.default_rng(0),
    )
    assert not np.isin(found, seen).any()


def test_tastes_and_successors_read_both_channels(world: World) -> None:
    """Taking either channel's values away changes what is likely: no channel alone tells the process."""
    for name in ("category", "colour"):
        likely = [np.bincount(world.latents[name], row, SIZES[name]).max() for row in world.rows[:-1]]
        assert np.mean(likely) > 2 * np.bincount(world.latents[name], world.weight, SIZES[name]).max()
    for name in ("style", "colour"):
        values = world.latents[name]
        same = (values[world.successors] == values[:, None]) * world.successor_odds
        assert same.sum(1).mean() > 2 / SIZES[name]
    assert not (world.successors == np.arange(world.items)[:, None]).any()
    assert np.allclose(world.successor_odds.sum(1), 1)


def test_neither_channel_tells_the_other() -> None:
    """Mutual information of what only text and only pictures tell is that of chance, the category being in both."""
    latents = build_world(BazaarSource(items=5000)).latents
    for told in ("category", "brand", "material", "style", "price"):
        for shown in ("colour", "shape", "pattern"):
            table = np.zeros((SIZES[told], SIZES[shown]))
            np.add.at(table, (latents[told], latents[shown]), 1 / 5000)
            expected = np.outer(table.sum(1), table.sum(0))
            filled = table > 0
            information = (table[filled] * np.log(table[filled] / expected[filled])).sum()
            assert information < 2 * table.size / (2 * 5000)


def test_text_tells_its_attributes_and_none_of_the_picture(world: World) -> None:
    for index, (title, attributes) in enumerate(write_texts(world)):
        words = f"{title} {' '.join(attributes.values())}".lower()
        assert VALUES["category"][world.latents["category"][index]] in title.lower()
        assert VALUES["brand"][world.latents["brand"][index]] in title
        if world.has_text[index]:
            assert VALUES["material"][world.latents["material"][index]] in words
        else:
            assert "description" not in attributes
        for shown in (*COLOURS, *SHAPES, *PATTERNS):
            assert shown not in words.replace("crossed", "").split()


def test_missing_share(raw: Path) -> None:
    items = read_table(raw / "items.parquet", "raw_items").to_pylist()
    without_picture = [item for item in items if item["image"] is None]
    without_text = [item for item in items if "description" not in dict(item["attributes"])]
    for missing in (without_picture, without_text):
        assert 0.03 < len(missing) / len(items) < 0.2
    for item in items:
        assert (raw / "images" / f"{item['raw_id']}.png").exists() == (item["image"] is not None)


def test_latents_keep_silent_where_the_channel_does(raw: Path) -> None:
    items = read_table(raw / "items.parquet", "raw_items").to_pylist()
    for item, row in zip(items, read_table(raw / "latents.parquet", "latents").to_pylist(), strict=True):
        assert sum(row["all"]) == len(VALUES)
        assert sum(row["text"]) == (5 if "description" in dict(item["attributes"]) else 3)
        if item["image"] is None:
            assert row["image"] is None
        else:
            assert sum(row["image"]) == 4


def test_pictures_tell_category_colour_shape_and_pattern_apart() -> None:
    """Nearest neighbour among 6 pictures a kind, on pixels: far better than chance for each attribute."""
    draws = np.random.default_rng(0)

    def picture(category: int, colour: int, shape: int, pattern: int) -> np.ndarray:
        image = draw_picture(category, colour, shape, pattern, draws.random(8))
        assert image.size == (SIDE, SIDE)
        return np.asarray(image.resize((32, 32), Image.Resampling.BOX), np.float32).ravel()

    base = {"category": 0, "colour": 5, "shape": 0, "pattern": 0}
    for name in IMAGE:
        values = VALUES[name]
        shown = [picture(**base | {name: value}) for value in range(len(values)) for _ in range(6)]
        asked = [picture(**base | {name: value}) for value in range(len(values)) for _ in range(3)]
        distance = ((np.array(asked)[:, None] - np.array(shown)) ** 2).sum(2)
        right = distance.argmin(1) // 6 == np.arange(len(asked)) // 3
        assert right.mean() > 3 / len(values), name


def test_truth_is_kept_for_so_many_users(tmp_path: Path) -> None:
    generate(SMALL.model_copy(update={"oracle_users": 7, "users": 30}), tmp_path)
    assert len(read_table(tmp_path / "truth.parquet", "truth").column("user").unique()) == 7


def test_too_many_malformed_lines_stop_the_stage(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"rejected\.parquet: \d+ of \d+ lines .* are unreadable, cleaning\.max_rejected allows 1\.0%"
    ):
        generate(SMALL.model_copy(update={"users": 50}), tmp_path, max_rejected=0.01)
    assert pq.read_metadata(tmp_path / "rejected.parquet").num_rows > 0


def test_the_smallest_world(tmp_path: Path) -> None:
    counts = generate(BazaarSource(users=10, items=20, tastes=4, mean_history=6.0, malformed=0.0), tmp_path)
    assert counts["interactions"] >= 50
    assert counts["rejected"] == 0
    assert read_table(tmp_path / "rejected.parquet", "rejected").num_rows == 0


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"users": 3}, "datasets.shop.users"),
        ({"items": 0}, "datasets.shop.items"),
        ({"missing": 1.5}, "datasets.shop.missing"),
        ({"drift": "often"}, "datasets.shop.drift"),
        ({"taste": 3}, "did you mean 'tastes'"),
    ],
)
def test_bad_settings(settings: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load({"datasets": {"shop": {"source": "bazaar", **settings}}, "experiment": {"datasets": ["shop"]}})
