"""Long lives in the demo world: clicks have the probability that is told, interests sleep and come back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tessera.artifacts.tables import ArtifactError, describe, read_table
from tessera.ctr.data import load_samples
from tessera.ctr.oracle import judge_oracle
from tessera.ctr.samples import make_samples
from tessera.data.bazaar.generate import generate
from tessera.data.bazaar.lifelong import CHUNK, LifelongSampler, Lives
from tessera.data.bazaar.world import OPENING, YEARS, build_world
from tessera.data.prepare import prepare
from tessera.settings.ctr import CTREvaluation, ImpressionSamples
from tessera.settings.sources.base import prepare_settings
from tessera.settings.sources.bazaar import BazaarSource

SMALL = BazaarSource.model_validate(
    {"users": CHUNK + 6, "items": 150, "tastes": 30, "cleaning": {"core": None},
     "lifelong": {"clicks": 120, "interests": 6, "logged": 0.4}}
)  # fmt: skip
LATE = OPENING + 0.6 * YEARS * 365 * 86_400


@pytest.fixture(scope="module")
def sampler() -> LifelongSampler:
    assert SMALL.lifelong is not None
    return LifelongSampler(build_world(SMALL), SMALL.lifelong)


@pytest.fixture(scope="module")
def lives(sampler: LifelongSampler) -> Lives:
    return sampler.lives(0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lifelong")
    generate(SMALL, folder / "raw")
    prepare(folder / "raw", folder / "data", prepare_settings(SMALL))
    settings = ImpressionSamples.model_validate({"split": {"past": 0.65, "valid": 0.1, "test": 0.15}})
    make_samples(settings, folder / "data", folder / "samples")
    return folder


def outputs(folder: Path) -> tuple[Path, Path]:
    return folder / "p.parquet", folder / "m.json"


def test_clicks_have_the_told_probability(sampler: LifelongSampler) -> None:
    several = [sampler.lives(chunk) for chunk in (0, 1)]
    told = np.concatenate([one.probability for one in several])
    clicked = np.concatenate([one.clicked for one in several])
    assert ((told > 0) & (told < 1)).all()
    for low, high in ((0, 0.1), (0.1, 0.5), (0.5, 0.9)):
        mine = (told >= low) & (told < high)
        error = 4 * np.sqrt((told[mine] * (1 - told[mine])).sum()) / mine.sum()
        assert clicked[mine].mean() == pytest.approx(told[mine].mean(), abs=error)


def test_users_click_about_as_often_as_asked_for(lives: Lives) -> None:
    clicks = np.bincount(lives.users, lives.clicked)
    assert 90 < clicks.mean() < 160
    assert len(clicks) == CHUNK


def test_no_two_impressions_at_once(lives: Lives) -> None:
    same = np.diff(lives.users) == 0
    assert (np.diff(lives.times)[same] > 0).all()
    assert lives.times.min() >= OPENING
    assert lives.times.max() < OPENING + 1.01 * YEARS * 365 * 86_400


def test_every_click_is_logged_and_all_impressions_of_the_end(lives: Lives) -> None:
    assert lives.logged[lives.clicked].all()
    np.testing.assert_array_equal(lives.logged[~lives.clicked], lives.times[~lives.clicked] >= LATE)


def test_items_come_again_and_the_past_tells_what_is_clicked(sampler: LifelongSampler, lives: Lives) -> None:
    mine = lives.users == 0
    items, clicked = lives.items[mine], lives.clicked[mine]
    assert len(np.unique(items)) < len(items)
    # items that were clicked in the first half are clicked more often in the second
    rates: dict[bool, list[bool]] = {True: [], False: []}
    for user in range(CHUNK):
        items, clicked = lives.items[lives.users == user], lives.clicked[lives.users == user]
        half = len(items) // 2
        before = np.isin(items[half:], items[:half][clicked[:half]])
        for known in (True, False):
            rates[known] += clicked[half:][before == known].tolist()
    assert np.mean(rates[True]) > np.mean(rates[False]) + 0.1


def test_the_same_seed_gives_the_same_log(made: Path, tmp_path: Path) -> None:
    generate(SMALL, tmp_path)
    for name in ("interactions", "truth", "latents"):
        assert (tmp_path / f"{name}.parquet").read_bytes() == (made / f"raw/{name}.parquet").read_bytes()
    assert read_table(tmp_path / "items.parquet", "raw_items").equals(
        read_table(made / "raw/items.parquet", "raw_items")
    )


def test_the_log_is_one_that_other_stages_read(made: Path) -> None:
    rows = read_table(made / "raw/interactions.parquet", "raw_interactions")
    assert set(rows.column("rating").to_pylist()) == {0.0, 1.0}
    assert rows.column("row").to_pylist() == list(range(rows.num_rows))
    assert describe(made / "raw/truth.parquet")["kind"] == "click_truth"
    assert read_table(made / "data/users.parquet", "users").num_rows == SMALL.users


def test_the_oracle_beats_popularity(made: Path, tmp_path: Path) -> None:
    settings = CTREvaluation(resamples=100)
    found = judge_oracle(settings, made / "data", made / "raw/truth.parquet", made / "samples", *outputs(tmp_path))
    samples = load_samples(made / "samples")
    assert found["samples"] == len(samples.of("test"))
    assert found["metrics"]["AUC"] > 0.75
    assert found["metrics"]["ECE"] < 0.05
    read = read_table(tmp_path / "p.parquet", "ctr_predictions")
    np.testing.assert_array_equal(read.column("user").to_numpy(), samples.users[samples.of("test")])


def test_a_user_without_truth_is_said(made: Path, tmp_path: Path) -> None:
    few = SMALL.model_copy(update={"oracle_users": 3})
    generate(few, tmp_path / "raw")
    with pytest.raises(ArtifactError, match="raise oracle_users"):
        judge_oracle(
            CTREvaluation(), made / "data", tmp_path / "raw/truth.parquet", made / "samples", *outputs(tmp_path)
        )


def test_films_of_histories_that_number_them_anew(make: Callable[..., Any], write: Callable[..., str]) -> None:
    films = write("movies.dat", "10::Heat (1995)::Action|Crime\n20::Alien (1979)::Sci-Fi\n30::Unseen (1990)::Drama\n")
    histories = write("histories.txt", "1 2\n2 3\n")
    section = {"source": "sequences", "layout": "lines_without_user", "path": histories, "films": films}
    made = make(only_raw=True, film_ids=write("ids.txt", "1 20\n2 10\n"), **section)
    assert made.items["1"]["title"] == "Alien (1979)"
    assert made.items["2"]["attributes"] == {"genres": "Action, Crime", "year": "1995"}
    assert set(made.items) == {"1", "2"}
    with pytest.raises(ValueError, match=r"line 1: '1 20 3', expected `item film`"):
        make(only_raw=True, film_ids=write("bad.txt", "1 20 3\n"), **section)
