"""Every ready config on the public files that it names: the counts that their publishers state."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tessera.data.dataset import load_dataset
from tessera.recommenders.popularity_bins import popularity_bins
from tessera.settings.config import load

CONFIGS = Path(__file__).resolve().parents[3] / "config"

# dataset -> config, a file that must be there, users, items, interactions, test users
EXPECTED: dict[str, tuple[str, str, int, int, int, int]] = {
    "ml-100k": ("ml-100k", "ml-100k-posters", 943, 1682, 100_000, 943),
    "ml-100k-temporal": ("ml-100k", "ml-100k-posters", 943, 1682, 100_000, 166),
    "beauty": ("beauty", "s3rec-beauty-lastfm", 22_363, 12_101, 198_502, 22_363),
    "beauty-bert4rec": ("beauty-bert4rec", "amazon-beauty-bert4rec", 40_226, 54_542, 353_962, 40_226),
    "ml-1m": ("ml-1m", "ml-1m-sas-lifelong", 6_040, 3_416, 987_019, 6_040),
    "ml-1m-given": ("ml-1m", "ml-1m-sas-lifelong", 6_040, 3_416, 993_059, 6_040),
    "lastfm": ("lastfm", "s3rec-beauty-lastfm", 1_090, 3_646, 52_551, 1_090),
    "amazon-prime-pantry": ("amazon-prime-pantry", "amazon-prime-pantry-pad", 12_871, 8_347, 115_004, 12_871),
    "amazon-gift-cards": ("amazon-gift-cards", "amazon-2018-gift-cards-raw", 454, 147, 2_949, 454),
    "yelp": ("yelp", "yelp-2015-raw", 427, 678, 2_885, 427),
    "amazon-industrial": ("amazon-industrial", "amazon-industrial-minionerec", 3_285, 3_541, 22_743, 3_285),
    "grocery": ("grocery", "grocery-rechorus", 14_681, 8_687, 121_892, 14_681),
}


@pytest.fixture
def prepared(
    make: Callable[..., Any], data_root: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Any]:
    """A dataset of the ready configs."""

    def run(name: str) -> Any:
        config, needed = EXPECTED[name][:2]
        monkeypatch.setenv("TESSERA_DATA", str(data_root(needed).parent))
        text = (CONFIGS / f"{config}.yaml").read_text(encoding="utf-8")
        section = load(yaml.safe_load(text), config).datasets[name]
        return make(**section.model_dump())

    return run


@pytest.mark.data
@pytest.mark.parametrize("name", EXPECTED)
def test_counts(prepared: Callable[[str], Any], name: str) -> None:
    made = prepared(name)
    _, _, users, items, interactions, tested = EXPECTED[name]
    counts = made.stats["counts"]
    assert (counts["users"], counts["items"], counts["interactions"]) == (users, items, interactions)
    assert counts["test"] == tested
    assert made.stats["rejected"]["rows"] == 0
    data = load_dataset(made.folder / "data")
    cases = data.cases("test")
    assert len(cases) == tested
    assert cases.lengths.min() > 0
    json.dumps(made.stats, allow_nan=False)


@pytest.mark.data
def test_popularity_bins_of_prime_pantry_are_those_of_pad(prepared: Callable[[str], Any]) -> None:
    """Its code has the ranks at which they end as numbers; here they come from training interactions alone."""
    popularity = load_dataset(prepared("amazon-prime-pantry").folder / "data").train_counts
    bins = popularity_bins(popularity, 10)
    assert np.cumsum(np.bincount(bins)[1:])[:-1].tolist() == [35, 100, 205, 361, 585, 898, 1357, 2074, 3348]
    mass = np.bincount(bins, popularity)[1:]
    assert (mass.sum(), mass.min(), mass.max()) == (89_262, 8_731, 9_000)


@pytest.mark.data
def test_films_have_texts_and_posters(prepared: Callable[[str], Any]) -> None:
    made = prepared("ml-100k")
    item = made.items["1"]
    assert item["title"] == "Toy Story (1995)"
    assert list(item["attributes"]) == ["genres", "year", "overview", "original_language", "runtime"]
    assert item["attributes"]["genres"] == "Animation, Children's, Comedy"
    assert item["attributes"]["overview"].startswith("Led by Woody, Andy's toys")
    assert item["image"] == "1.jpg"
    assert made.stats["image_share"] == pytest.approx(1663 / 1682)
    assert made.items["543"]["title"] == "Misérables, Les (1995)"


@pytest.mark.data
def test_last_fm_histories_are_those_of_the_file(
    prepared: Callable[[str], Any], data_root: Callable[..., Path]
) -> None:
    histories = prepared("lastfm").histories()
    for line in data_root("s3rec-beauty-lastfm", "LastFM.txt").read_text().splitlines():
        user, *items = line.split()
        assert [item for item, _ in histories[user]] == items


@pytest.mark.data
def test_merged_samples_hold_every_sample(prepared: Callable[[str], Any], data_root: Callable[..., Path]) -> None:
    made = prepared("amazon-industrial")
    histories = made.histories()
    assert max(map(len, histories.values())) == 34
    name = "Industrial_and_Scientific_5_2016-10-2018-11.csv"
    for part in ("valid", "test"):
        with data_root("amazon-industrial-minionerec", part, name).open(newline="") as file:
            for row in csv.DictReader(file):
                window = [*json.loads(row["history_item_id"]), int(row["item_id"])]
                whole = [int(item) for item, _ in histories[row["user_id"]]]
                places = range(len(whole) - len(window) + 1)
                assert any(whole[place : place + len(window)] == window for place in places)
    item = made.items["1"]
    assert item["title"].startswith("Stanley TRA708T Sharpshooter")
    assert item["attributes"]["brand"] == "Stanley"
    assert item["attributes"]["description"].startswith("Heavy-duty staples are ideal for jobs")


@pytest.mark.data
def test_given_targets(prepared: Callable[[str], Any], data_root: Callable[..., Path]) -> None:
    histories = prepared("ml-1m-given").histories()
    targets = data_root("ml-1m-sas-lifelong", "test", "output.txt").read_text().split()
    train = data_root("ml-1m-sas-lifelong", "train", "input.txt").read_text().splitlines()
    for user, (target, line) in enumerate(zip(targets, train, strict=True), 1):
        rows = histories[str(user)]
        assert rows[-1] == (target, "test")
        assert rows[-2] == (line.split()[-1], "valid")
        assert {part for _, part in rows[:-2]} == {"train"}


@pytest.mark.data
def test_product_texts_are_clean(prepared: Callable[[str], Any]) -> None:
    gift = prepared("amazon-gift-cards")
    pantry = prepared("amazon-prime-pantry")
    texts = [text for made in (gift, pantry) for item in made.items.values() for text in _texts(item)]
    assert len(texts) > 8000
    assert not [text for text in texts if "&amp;" in text or "&#" in text or "<br" in text or "</" in text]


def _texts(item: dict[str, Any]) -> list[str]:
    return [text for text in (item["title"], *item["attributes"].values()) if text]
