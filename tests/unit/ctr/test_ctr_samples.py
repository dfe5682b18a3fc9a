"""Samples against a plain loop over the log: labels, cuts, strictly earlier histories, negatives never consumed."""

from __future__ import annotations

import numpy as np
import pytest
from ctr_logs import random_rows, samples_settings, write_log

from quick import quick
from tessera.artifacts.tables import ArtifactError, read_table
from tessera.ctr.data import load_catalogue, load_samples
from tessera.ctr.samples import SampleError, _Had, _Negatives, _with_negatives, make_samples, read_categories

CUTS = {"split": {"past": 0.2, "valid": 0.15, "test": 0.15}}


def make(tmp_path, rows, items=30, categories=None, **settings):
    data = write_log(tmp_path / "data", rows, items, categories)
    make_samples(samples_settings(**settings), data, tmp_path / "samples")
    return load_samples(tmp_path / "samples")


def table_rows(tmp_path):
    table = read_table(tmp_path / "samples/samples.parquet", "ctr_samples")
    return [tuple(row.values()) for row in table.to_pylist()]


def history(samples, number):
    batch = samples.batch(np.array([number]))
    return batch.histories[0, : int(batch.lengths[0])].tolist()


@pytest.mark.parametrize("ties", [True, False])
def test_impressions_are_those_of_a_plain_loop(tmp_path, ties):
    rows = random_rows(ties=ties)
    samples = make(tmp_path, rows, **CUTS)
    events = sorted(time for _, _, time, rating in rows if rating)
    past, valid, test = (events[round(share * len(events))] for share in (0.2, 0.7, 0.85))
    expected = []
    for user, item, time, rating in rows:
        if time >= past:
            part = "train" if time < valid else "valid" if time < test else "test"
            before = [i for u, i, t, r in rows if u == user and t < time and r]
            expected.append((user, item, int(rating > 0), part, before))
    found = [
        (user, item, label, part, history(samples, number))
        for number, (user, item, label, _, _, part) in enumerate(table_rows(tmp_path))
    ]
    assert found == expected


def test_rows_before_the_log_tells_of_refusals_are_history(tmp_path, caplog):
    """A log that begins with clicks alone says nothing of what was shown beside them."""
    rows = [(user, 1 + (n * 7 + user) % 30, n, float(n < 12 or n % 2)) for user in (1, 2) for n in range(40)]
    split = {"valid": 0.2, "test": 0.2}
    with caplog.at_level("INFO", "tessera"):
        samples = make(tmp_path, rows, split=split)
    assert samples.moments.min() == 12
    assert len(history(samples, 0)) == 12
    assert "24 impressions before the first that was not clicked are history and no samples" in caplog.text
    later = make(tmp_path / "later", rows, split={"past": 0.5, **split})
    assert later.moments.min() > 12


def test_refusals_that_begin_after_training_are_told(tmp_path):
    rows = [(user, 1 + (n * 7 + user) % 30, n, float(n < 35 or n % 2)) for user in (1, 2) for n in range(40)]
    with pytest.raises(SampleError, match=r"tells of clicks alone until after training ends: .*cleaning.since"):
        make(tmp_path, rows, split={"valid": 0.2, "test": 0.2})


def test_no_event_is_in_its_own_history(tmp_path):
    # every item comes once, so that an event found in a history can be told
    rows = [(1 + n // 50, 1 + n, (n % 50) // 3, 1.0) for n in range(200)]
    rows += [(5, 1 + time, time, 0.0) for time in range(17)]
    samples = make(tmp_path, rows, items=200, **CUTS)
    for number in range(len(samples.users)):
        batch = samples.batch(np.array([number]))
        assert int(batch.items[0]) not in history(samples, number)
        length = int(batch.lengths[0])
        assert (batch.ages[0, :length] > 0).all()
        assert (batch.ages[0, length:] == 0).all()


def test_the_cut_is_the_same_moment_for_all(tmp_path):
    rows = [(user, 1 + (n * 7 + user) % 30, 100 * n + user, float(user < 8)) for user in range(1, 9) for n in range(40)]
    samples = make(tmp_path, rows, **CUTS)
    bounds = [
        (samples.moments[samples.of(p)].min(), samples.moments[samples.of(p)].max()) for p in ("train", "valid", "test")
    ]
    assert bounds[0][1] < bounds[1][0] <= bounds[1][1] < bounds[2][0]


def test_a_log_without_times_is_cut_by_position(tmp_path):
    rows = [(user, 1 + (n * 3 + user) % 30, None, None) for user in (1, 2) for n in range(10 * user)]
    data = write_log(tmp_path / "data", rows, 30)
    with pytest.raises(SampleError, match="by: position"):
        make_samples(samples_settings(source="positives"), data, tmp_path / "samples")
    split = {"by": "position", "past": 0.5, "valid": 0.2, "test": 0.2}
    make_samples(samples_settings(source="positives", split=split), data, tmp_path / "samples")
    samples = load_samples(tmp_path / "samples")
    clicks = samples.labels > 0
    for user in (1, 2):
        places = samples.moments[clicks & (samples.users == user)]
        parts = samples.parts[clicks & (samples.users == user)]
        np.testing.assert_array_equal(places, np.arange(5 * user, 10 * user))
        np.testing.assert_array_equal(parts, np.repeat([0, 1, 2], [user, 2 * user, 2 * user]))
    batch = samples.batch(np.flatnonzero(clicks)[:1])
    assert batch.ages[0].tolist() == [5, 4, 3, 2, 1]  # events, not seconds


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "the highest rating is 0, and samples.source impressions takes one above 0 for a click"),
        ({"split": {"by": "position"}}, "the highest rating is 0, and samples.source impressions"),
        (
            {"source": "ratings", "history": "positives", "threshold": 9},
            "the highest rating is 0, and samples.threshold 9",
        ),
    ],
)
def test_a_log_without_any_click_says_how_it_is_read(tmp_path, settings, said):
    rows = [(1, 1 + n, n, 0.0) for n in range(30)]
    with pytest.raises(SampleError, match=f"interactions.parquet: no row is a click.*{said}"):
        make(tmp_path, rows, **settings)


def test_a_threshold_that_no_rating_reaches_is_told_with_the_highest(tmp_path):
    rows = [(1, 1 + n, n, float(n % 5)) for n in range(30)]
    with pytest.raises(
        SampleError, match=r"a rating of 9 or more is a click, and the highest is 4; lower the threshold$"
    ):
        make(tmp_path, rows, source="ratings", threshold=9)


def test_ratings_are_clicks_from_a_threshold(tmp_path):
    rows = [(1, 1 + n, n, float(1 + n % 5)) for n in range(30)]
    every = make(tmp_path / "all", rows, source="ratings", threshold=4)
    assert every.labels.tolist() == [float(1 + n % 5 >= 4) for n in range(30)]
    assert history(every, 29) == list(range(1, 30))
    high = make(tmp_path / "high", rows, source="ratings", threshold=4, history="positives")
    assert history(high, 29) == [1 + n for n in range(29) if 1 + n % 5 >= 4]


@pytest.mark.parametrize("distribution", ["uniform", "popularity", "category"])
def test_negatives_are_nothing_that_the_user_had(tmp_path, distribution):
    rows = random_rows(users=8, items=60, length=40, rating=False)
    categories = {item: "abc"[item % 3] for item in range(1, 61)}
    samples = make(tmp_path, rows, 60, categories, source="positives", negatives=3, distribution=distribution, **CUTS)
    clicks = np.flatnonzero(samples.labels > 0)
    assert len(samples.labels) == 4 * len(clicks)
    train_events = read_table(tmp_path / "samples/catalogue.parquet", "ctr_catalogue").column("events").to_numpy()
    moments = [samples.moments[samples.of(part)].max() for part in ("train", "valid", "test")]
    strangers = 0
    for number, (user, item, label) in enumerate(zip(samples.users, samples.targets, samples.labels, strict=True)):
        if label:
            click = item
            continue
        had = {i for u, i, t, _ in rows if u == user and t <= moments[samples.parts[number]]}
        assert item not in had
        strangers += item not in {i for u, i, _, _ in rows if u == user}
        if distribution == "category":
            assert item % 3 == click % 3
        if distribution == "popularity":
            assert train_events[item - 1] > 0
    assert strangers


def test_negatives_of_a_category_are_of_it_while_any_is_left(tmp_path, caplog):
    """Also where a user has had nearly all of it; only of one that the user had wholly they are of any."""
    caplog.set_level("INFO", "tessera")
    rows = [(1, 1 + n % 199, n, None) for n in range(400)]  # of 200 items of one category one is left
    rows += [(2, 201, 360 + n, None) for n in range(40)]  # the only item of another
    categories = {item: "a" if item <= 200 else "b" if item == 201 else "c" for item in range(1, 211)}
    settings = {"source": "positives", "distribution": "category", "negatives": 2}
    samples = make(tmp_path, rows, 210, categories, **settings, **CUTS)
    drawn = samples.labels == 0
    assert drawn.sum() == 2 * (samples.labels == 1).sum()
    late = samples.of("test")
    assert set(samples.targets[late][drawn[late] & (samples.users[late] == 1)]) == {200}
    others = samples.targets[drawn & (samples.users == 2)]
    assert f"{len(others)} negatives are of any category" in caplog.text
    assert 201 not in others
    assert len(set(others.tolist())) > 20


def test_categories_that_users_had_wholly_cost_no_search_through_the_catalogue():
    items, users = 20_000, np.repeat(np.arange(1, 401), 10)
    clicked = np.random.default_rng(0).integers(1, items + 1, len(users))
    rows = {"user": users, "item": clicked, "label": np.ones(len(users), np.int8), "part": np.zeros(len(users), int)}
    settings = samples_settings(source="positives", distribution="category")
    popularity = np.bincount(clicked, minlength=items + 1)
    categories = np.arange(items + 1)  # every item is one of its own
    # 9 s when each click went through the catalogue
    found = quick(lambda: _with_negatives(rows, settings, users, clicked, rows["part"], popularity, categories), 1)
    assert len(found["item"]) == 2 * len(users)
    had = set(zip(users.tolist(), clicked.tolist(), strict=True))
    assert not had & set(zip(users.tolist(), found["item"][1::2].tolist(), strict=True))


def test_who_had_nearly_all_that_is_popular_gets_the_rest_by_the_same_odds():
    """Uniform ones would mostly be items that training never met: no click among them."""
    popularity = np.concatenate([[0], 1000 // np.arange(1, 201), np.zeros(800, int)])
    settings = samples_settings(source="positives", distribution="popularity")
    negatives = _Negatives(settings, popularity, np.ones(1001, int))
    had = _Had(np.ones(190, int), np.arange(1, 191), 1000)
    users = np.ones(400, int)
    drawn = negatives.draw(users, np.ones(400, int), had, np.random.default_rng(0))
    assert set(drawn) == set(range(191, 201))


def test_a_user_who_had_everything_gets_fewer_negatives(tmp_path):
    rows = [(1, 1 + n % 5, n, None) for n in range(30)] + [(2, 1 + n % 2, n, None) for n in range(30)]
    samples = make(tmp_path, rows, items=5, source="positives", **CUTS)
    assert (samples.labels[samples.users == 1] == 1).all()
    assert set(samples.targets[(samples.users == 2) & (samples.labels == 0)]) <= {3, 4, 5}


def test_negatives_of_training_do_not_know_what_comes_later(tmp_path):
    rows = random_rows(users=8, items=60, length=40, ties=False, rating=False)
    first = make(tmp_path / "a", rows, 60, source="positives", negatives=2, **CUTS)
    cut = first.moments[first.of("valid")].min()
    later = [row for row in rows if row[2] >= cut]
    dealt = np.random.default_rng(1).permutation([row[1] for row in later])
    swapped = iter(dealt.tolist())
    other = [(u, next(swapped) if t >= cut else i, t, r) for u, i, t, r in rows]
    assert other != rows
    second = make(tmp_path / "b", other, 60, source="positives", negatives=2, **CUTS)
    for name in ("users", "targets", "labels", "ends", "moments"):
        one, two = (getattr(s, name)[s.of("train")] for s in (first, second))
        np.testing.assert_array_equal(one, two)


def test_the_latest_rows_of_each_part_are_kept(tmp_path):
    rows = random_rows(users=4, length=80, ties=False)
    every = make(tmp_path / "every", rows, **CUTS)
    some = make(tmp_path / "some", rows, per_user=3, **CUTS)
    for part in ("train", "valid", "test"):
        for user in range(1, 5):
            whole, kept = (s.moments[s.of(part)][s.users[s.of(part)] == user] for s in (every, some))
            np.testing.assert_array_equal(kept, whole[-3:])
    # the history of what is kept is as long as before
    assert some.lengths.max() == every.lengths.max()


def test_empty_histories_and_unknown_items_are_samples(tmp_path):
    rows = [(user, 1 + n % 20, 10 * n + user, float(n % 4 > 0)) for user in (1, 2) for n in range(40)]
    rows += [(3, 25, 395, 1.0), (3, 3, 396, 0.0)]  # a user of the last moment, with an item of its own
    samples = make(tmp_path, rows, **CUTS)
    mine = np.flatnonzero(samples.users == 3)
    assert samples.lengths[mine].tolist() == [0, 1]
    assert samples.batch(mine[:1]).histories.shape == (1, 1)
    assert int(load_catalogue(tmp_path / "samples").popularity[25]) == 0


@pytest.mark.parametrize(
    ("ratings", "settings", "expected"),
    [
        ([1.0], {}, ["are clicks", "source: positives"]),
        ([0.0, 1.0], {"source": "ratings", "threshold": 2.0, "history": "all"}, ["are no clicks", "threshold"]),
        ([1.0, 3.0, 5.0], {}, ["are clicks", "source: ratings"]),
    ],
)
def test_one_class_alone_is_told(tmp_path, ratings, settings, expected):
    rows = [(user, 1 + n % 20, 10 * n, ratings[n % len(ratings)]) for user in (1, 2) for n in range(40)]
    with pytest.raises(SampleError) as caught:
        make(tmp_path, rows, **CUTS, **settings)
    for part in ["interactions.parquet: all", "samples of train", *expected]:
        assert part in str(caught.value)
    assert not (tmp_path / "samples").exists()


def test_histories_may_be_cut_to_their_end(tmp_path):
    samples = make(tmp_path, random_rows(), **CUTS)
    longest = int(np.argmax(samples.lengths))
    batch = samples.batch(np.array([longest]), most=5)
    assert batch.histories[0].tolist() == history(samples, longest)[-5:]
    assert batch.lengths.tolist() == [5]


def test_histories_stay_on_disk(tmp_path):
    samples = make(tmp_path, random_rows(), **CUTS)
    assert isinstance(samples.items, np.memmap)
    assert isinstance(samples.times, np.memmap)


@pytest.mark.parametrize("source", ["impressions", "positives"])
def test_no_target_of_training_is_unknown(source, tmp_path):
    """Else an unknown item would be one that nobody clicked: a label."""
    # item 25 is shown in the middle of the log and nobody clicks it
    rows = [(user, 1 + n % 20, 10 * n + user, 1.0) for user in (1, 2) for n in range(40)]
    rows.insert(20, (1, 25, rows[20][2] - 1, 0.0))
    found = make(tmp_path, rows, source=source, **CUTS)
    known = load_catalogue(tmp_path / "samples").known.numpy()
    assert known[found.targets[found.of("train")]].all()
    assert not known[0]


def test_popularity_counts_training_alone(tmp_path):
    rows = random_rows(ties=False)
    samples = make(tmp_path, rows, **CUTS)
    cut = samples.moments[samples.of("valid")].min()
    expected = np.bincount([i for _, i, t, r in rows if t < cut and r], minlength=31)
    np.testing.assert_array_equal(load_catalogue(tmp_path / "samples").popularity, expected)


def test_categories(tmp_path):
    folder = write_log(tmp_path, [(1, 1, 1, 1.0)], 4, {1: "Drama, War", 2: "War", 4: "Drama|War"})
    numbers, names = read_categories(folder / "items.parquet", "category")
    assert names == ["Drama", "War"]
    assert numbers.tolist() == [0, 1, 2, 0, 1]


def test_categories_that_no_item_has_are_told(tmp_path, caplog):
    folder = write_log(tmp_path / "data", random_rows(ties=False), 30, dict.fromkeys(range(1, 31), "Drama"))
    assert read_categories(folder / "items.parquet", "categories")[1] == []
    (told,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "no item has the attribute 'categories' (ctr.samples.category)" in told.message
    assert "did you mean 'category'?" in told.message
    wanted = {"source": "positives", "distribution": "category", "category": "categories"}
    with pytest.raises(SampleError, match="draws from the click's category, and no item has the attribute 'categ"):
        make_samples(samples_settings(**wanted), folder, tmp_path / "samples")
    caplog.clear()
    read_categories(write_log(tmp_path / "bare", [(1, 1, 1, 1.0)], 2) / "items.parquet", "category")
    assert not [record for record in caplog.records if record.levelname == "WARNING"], "nobody asked"


def test_what_the_log_lacks_is_said(tmp_path):
    data = write_log(tmp_path / "data", random_rows(rating=False), 30)
    with pytest.raises(SampleError, match="720 of 720 rows have no rating"):
        make_samples(samples_settings(), data, tmp_path / "samples")
    short = write_log(tmp_path / "short", [(1, 1, 5, 1.0), (1, 2, 5, 0.0)], 3)
    with pytest.raises(SampleError, match="no sample is left to"):
        make_samples(samples_settings(), short, tmp_path / "samples")


def test_files_that_do_not_fit_are_refused(tmp_path):
    make(tmp_path, random_rows(), **CUTS)
    np.save(tmp_path / "samples/times.npy", np.zeros(3, np.int64))
    with pytest.raises(ArtifactError, match=r"offsets\.npy counts"):
        load_samples(tmp_path / "samples")
    (tmp_path / "samples/items.npy").unlink()
    with pytest.raises(ArtifactError, match=r"items\.npy: no such file"):
        load_samples(tmp_path / "samples")
