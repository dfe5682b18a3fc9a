"""What a model is told of an item: published cuts, an order of one's own, captions, items of which nothing is known."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from quick import quick
from tessera.artifacts.tables import ArtifactError, write_table
from tessera.language.prompts import attribute_text, domain_sentence, first_sentence, item_attributes
from tessera.settings.base import ConfigError
from tessera.settings.language import ItemPrompt

ITEMS = [
    (2, "b", "Heat", [("genre", "crime"), ("description", "Two men meet. One; \n robs banks. " + "x" * 200)], "2.jpg"),
    (1, "a", "Alien", [("genre", "horror"), ("year", "")], None),
    (3, "c", "", [("genre", "")], None),
]


def catalogue(folder: Path, order: list[int] | None = None) -> Path:
    rows = [ITEMS[i] for i in order or [0, 1, 2]]
    columns = list(zip(*rows, strict=True))
    types = [pa.int32(), pa.string(), pa.string(), pa.map_(pa.string(), pa.string()), pa.string()]
    arrays = [pa.array(list(column), kind) for column, kind in zip(columns, types, strict=True)]
    table = pa.table(arrays, names=["item", "raw_id", "title", "attributes", "image"])
    write_table(folder / "items.parquet", table, "items")
    return folder / "items.parquet"


def test_all_attributes_by_default(tmp_path: Path) -> None:
    told = item_attributes(catalogue(tmp_path), ItemPrompt())
    assert list(told) == [1, 2]  # ascending; nothing is known of item 3
    assert told[1] == [("title", "Alien"), ("genre", "horror")]
    assert told[2][-1] == ("description", "Two men meet.")
    assert attribute_text(told[1]) == "title is Alien; genre is horror"
    assert domain_sentence("film") == "The film has the following attributes."


def test_the_order_of_rows_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    one = item_attributes(catalogue(tmp_path), ItemPrompt())
    assert one == item_attributes(catalogue(tmp_path / "other", [2, 0, 1]), ItemPrompt())


def test_values_are_cut_and_cannot_break_the_form(tmp_path: Path) -> None:
    told = item_attributes(catalogue(tmp_path), ItemPrompt(attributes=["description", "title"], first_sentence=[]))
    assert [name for name, _ in told[2]] == ["description", "title"]
    value = told[2][0][1]
    assert len(value) == 100
    assert "Two men meet. One. robs banks. x" in value
    short = item_attributes(catalogue(tmp_path), ItemPrompt(max_characters=3))
    assert short[2][0] == ("title", "Hea")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Soft; washable and warm. Made in Wales.", "Soft. washable and warm."),
        ("Fits models A; B; C. Black.", "Fits models A. B. C."),
        ("No end; of it", "No end. of it"),
        (" Two\nlines; one? More.", "Two lines. one?"),
    ],
)
def test_a_semicolon_ends_no_sentence(tmp_path: Path, said: str, told: str) -> None:
    rows = pa.table(
        [
            pa.array([1], pa.int32()), ["a"], ["Rug"],
            pa.array([[("description", said)]], pa.map_(pa.string(), pa.string())), pa.array([None], pa.string()),
        ],
        names=["item", "raw_id", "title", "attributes", "image"],
    )  # fmt: skip
    write_table(tmp_path / "items.parquet", rows, "items")
    assert dict(item_attributes(tmp_path / "items.parquet", ItemPrompt())[1])["description"] == told


def test_an_attribute_that_no_item_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no item has the attribute 'gener'; did you mean 'genre'"):
        item_attributes(catalogue(tmp_path), ItemPrompt(attributes=["gener"]))
    with pytest.raises(ConfigError, match="first_sentence: no item has the attribute 'descripton'; did you mean 'desc"):
        item_attributes(catalogue(tmp_path), ItemPrompt(first_sentence=["descripton"]))


def captions(folder: Path, rows: list[tuple[int, str | None, str]]) -> Path:
    items, texts, states = zip(*rows, strict=True)
    table = pa.table(
        [pa.array(items, pa.int32()), pa.array(texts, pa.string()), pa.array(states, pa.string())],
        names=["item", "text", "status"],
    )
    write_table(folder / "looks.parquet", table, "captions")
    return folder / "looks.parquet"


def test_captions_come_last(tmp_path: Path) -> None:
    path = captions(tmp_path, [(3, "a red star", "captioned"), (1, None, "no picture"), (2, "two men", "captioned")])
    told = item_attributes(catalogue(tmp_path), ItemPrompt(attributes=["title"]), {"looks": path})
    assert told == {1: [("title", "Alien")], 2: [("title", "Heat"), ("looks", "two men")], 3: [("looks", "a red star")]}


def test_captions_are_told_whole(tmp_path: Path) -> None:
    long = "a red star; " * 20
    path = captions(tmp_path, [(1, long, "captioned"), (2, None, "no picture"), (3, None, "no picture")])
    prompt = ItemPrompt(max_characters=10)
    told = item_attributes(catalogue(tmp_path), prompt, {"looks": path})
    assert told[1][-1] == ("looks", " ".join(long.replace(";", ".").split()))


def test_captions_of_another_dataset_are_refused(tmp_path: Path) -> None:
    path = captions(tmp_path, [(7, "a red star", "captioned")])
    with pytest.raises(ArtifactError, match="7 is not an id"):
        item_attributes(catalogue(tmp_path), ItemPrompt(), {"looks": path})


@pytest.mark.parametrize(
    "sentence",
    [
        "When Dr. No arrives, Bond follows.", "A can of 8 oz. Smart Straw.", "J. R. R. Tolkien wrote it.",
        "Written by (Mr. Bean).", "A host of U.S. television.", "Is it warm?", "Buy now!", "Use 1/2 in. bolts.",
        "Vol. 3 of the set.", "Called etc. and so on.", "Waits for it ... and jumps.", "A lamp.", "It plugs in.",
        "Say no.", "Is 8 in. long.", "Written by J. Smith.",
    ],
)  # fmt: skip
def test_a_sentence_does_not_end_at_what_is_cut_short(sentence: str) -> None:
    assert first_sentence(sentence) == sentence
    assert first_sentence(f"{sentence} Another one. More.") == sentence


def test_small_letters_begin_sentences_too() -> None:
    assert first_sentence("a sturdy oak lamp. it has three bulbs. more") == "a sturdy oak lamp."
    assert first_sentence("Strong and simple. iPhone ready.") == "Strong and simple."
    assert first_sentence("100% cotton! machine washable.") == "100% cotton!"


def test_a_long_text_without_an_end_takes_no_time() -> None:
    quick(lambda: first_sentence("Dr. J. " * 20_000), 2)


def test_a_text_without_an_end_is_one_sentence() -> None:
    assert first_sentence("8 oz. of Dr. Smith") == "8 oz. of Dr. Smith"
    assert first_sentence("") == ""
