"""Item texts without markup, and with every word that only looks like it."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quick import quick
from tessera.data.text import LONGEST, as_text, as_title, clean, counted


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("HERSHEY&#39;S &amp; Co", "HERSHEY'S & Co"),
        ("<div class=\"aplus\"> <br>Cards<br />for <a href='x'>you</a></div>", "Cards for you"),
        ("&lt;b&gt;bold&lt;/b&gt; 3 < 4 > 2", "bold 3 < 4 > 2"),
        ("a<script>alert(1)</script>b<style>p{x:y}</style>c", "a b c"),
        ("var aPageStart = (new Date()).getTime();\nvar ue_t0=1;", ""),
        (".a-box-inner{background-color:#fff}#alm-price{display:none}", ""),
        (".a-box-inner{background-color:#fff}#alm-price{display:none}.popover-tab", ""),
        ("  many \n\t spaces  ", "many spaces"),
        ("中文 éü", "中文 éü"),
        ("Old<BR>New<P>more", "Old New more"),
        ("x <!-- note --> y <!-- cut off", "x y"),
        ("<o:p>&nbsp;</o:p>Word", "Word"),
        ("<![CDATA[Lamp]]>", "Lamp"),
        ('<?xml version="1.0"?><!DOCTYPE html>Lamp', "Lamp"),
        ("A <custom data-x='1'>b", "A b"),
        ("<b>Bold lamp", "Bold lamp"),
        ("</span></span>", ""),
        ("<body>", ""),
        # entities inside of an attribute do not end it
        ('<span data-x="{&quot;max&quot;:&quot;700&quot;}">4.6 stars</span>', "4.6 stars"),
        # what is left of a tag whose beginning was cut off
        (' class="a-keyvalue" role="presentation">\n<tr><td>Weight</td></tr>', "Weight"),
        ("AC\x00DC \x96 live\x07 \ud83d", "ACDC live \ufffd"),
    ],
)
def test_markup_goes(given: str, expected: str) -> None:
    assert clean(given) == expected


@pytest.mark.parametrize(
    "cut_off",
    [
        '<span class="a-size-medium a-color-secondary a-text-normal"',
        '\n    <div class="a-section a-spacing-none',
        "<div class='a' id=\"b",
        "<a href=http://shop/x",
        "<div class=",
        "<span",
        "</span",
        '<script type="text/javascript">var x = 3; and so on',
        "<script>var aPageStart = (new Date()).getTime();",
        "<style>.a{color:red}.b{display:none}",
    ],
)
def test_markup_that_breaks_off_is_no_title(cut_off: str) -> None:
    with counted() as counts:
        assert as_title(cut_off) == ""
    assert counts == {"titles_emptied": 1}
    assert clean(f"Lamp {cut_off}") == "Lamp"


@pytest.mark.parametrize(
    "title",
    [
        "Multi-function (12 in 1) pliers",
        "Dysfunction (2019)",
        "Function (12 in 1) {new}",
        "function (12 in 1)",
        "Cable #2 {red: new}",
        "Adapter #3.5 {size: M} 0",
        "#Lamp {color: red}",
        "Lamp in <Style> of 1950s",
        "Lamp in <style> of 1950s",
        "Kids <3 years, size <M> / a<b 0",
        "size <S>, <M> or <L>",
        "A<B",
        "T-Shirt <b",
        "Map <map of x>",
        "Script <script> font",
        "Heart </bleed>",
        "if a<b and c>d then",
        "2 < 3 and 5 > 4",
        "I <3 U",
        "Set {of 3} (new): 50% off, C# & C++",
        "Pen &notebook, R&D, &unknown;",
        "The getTime() of your life",
        "window.open: a novel",
    ],
)
def test_words_that_look_like_code_stay(title: str) -> None:
    with counted() as counts:
        assert clean(title, "title") == title
    assert not counts


def test_a_file_of_titles_keeps_them(
    make: Callable[..., Any], write: Callable[..., str], data_root: Callable[..., Path]
) -> None:
    for name in ("items_function-paren.csv", "items_css-like.csv", "items_lt.csv"):
        path = data_root("faults", name)
        with path.open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        log = "".join(f"u,{row['sku']},{number}\n" for number, row in enumerate(rows))
        made = make(
            source="columns",
            path=write("log.csv", f"user,item,t\n{log}"),
            timestamp="t",
            items={"path": str(path), "id": "sku", "title": "name", "text": ["brand"]},
            cleaning={"core": None},
        )
        found = {raw_id: (item["title"], item["attributes"]["brand"]) for raw_id, item in made.items.items()}
        assert found == {row["sku"]: (row["name"], row["brand"]) for row in rows}
        assert made.stats["title_share"] == 1
        assert made.stats["texts"] == {}
        assert made.stats["common_title"] is None


def test_what_is_taken_from_titles_is_told(
    make: Callable[..., Any], write: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    """Titles of a crawl: most break off in the middle of a tag, and those that are left are all the same."""
    titles = ['<span class=""a-size-medium""'] * 6 + ["Dog <b>food</b>"] * 13 + ["Cat food"]
    items = "".join(f'i{n},"{title}","<p></p>"\n' for n, title in enumerate(titles))
    log = "".join(f"u,i{n},{n}\n" for n in range(20))
    made = make(
        source="columns",
        path=write("log.csv", f"user,item,t\n{log}"),
        timestamp="t",
        items={"path": write("items.csv", f"id,name,about\n{items}"), "id": "id", "title": "name", "text": ["about"]},
        cleaning={"core": None},
    )
    assert made.stats["title_share"] == made.stats["text_share"] == 14 / 20
    assert made.stats["texts"] == {"titles_emptied": 6, "titles_changed": 13, "texts_emptied": 20}
    assert made.stats["common_title"] == {"title": "Dog food", "items": 13, "share": 13 / 20}
    assert "13 of 20 items have the same title, 'Dog food'" in caplog.text
    assert "6 titles and 20 other texts were nothing but markup or code" in caplog.text


HOSTILE = {
    "css": ".a {:" * 2000,
    "css rules": ".a{color:red" * 5000,
    "css end": ".a{color:red;b:c}" * 3000 + "{",
    "open": "<" * LONGEST,
    "tags": "<a " * 20_000,
    "quotes": '<a b="' * 9000,
    "two quotes": "<a p=\"<a q='\" r='\" s='" * 3000,
    "one quote": "<a b='" + '"' * LONGEST,
    "attributes": "<a " + "b=1 " * 20_000,
    "words": "<a " + "x " * 4090 + "<a " * 10_000,
    "comments": "<!--" * 12_000,
    "php": "<?php " * 9000,
    "ends": "</a" * 16_000,
    "pairs": "<b></b>" * 8000,
    "scripts": "<script>a</script>" * 3000,
    "open scripts": "<script x=1>" * 4000,
    "styles": "<style>.a{color:" * 4000,
    "program": "var x =" * 9000,
    "functions": "function f(a," * 5000,
    "entities": "&" * LONGEST,
    "names": "&a" * LONGEST,
    "fragment": 'a="b" ' * 10_000,
    "blanks": " " * LONGEST + "x",
    "long": "x" * 2_000_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_text_takes_long(name: str) -> None:
    quick(lambda: clean(HOSTILE[name]), 1.0)  # the slowest takes 0.1 to 0.3 s; a square of the length takes minutes


def test_texts_are_bounded() -> None:
    with counted() as counts:
        assert clean("ab " * LONGEST) == ("ab " * LONGEST)[:LONGEST].strip()
    assert counts == {"texts_cut": 1}


def test_as_text() -> None:
    assert as_text(None) == as_text(float("nan")) == as_text([]) == as_text({}) == ""
    assert as_text(["a", ["b", "a"], None, "a"]) == "a, b, a"
    assert as_text(["a", "b"], " > ") == "a > b"
    assert as_text({"\n Size: \n": "3 &amp; 4", "empty": ""}) == "Size: 3 & 4"
    assert as_text(9.5) == "9.5"
    assert as_text(True) == as_text(np.bool_(True)) == "yes"
    # as pandas reads lists of Parquet, in mappings and in each other
    array = np.array([np.array(["a", "b"], object), np.array(["c"], object)], object)
    assert as_text({"tags": array}) == as_text({"tags": ["a", "b", "c"]}) == "tags: a, b, c"
    nested: Any = "deep"
    for _ in range(900):
        nested = [nested]
    assert as_text(nested) == ""
