"""Texts of users where a person reads them."""

from __future__ import annotations

import pytest
import yaml

from quick import quick
from tessera.artifacts.shown import masked, one_line, shown_config, visible


def test_unseen_characters_are_seen() -> None:
    assert visible("a\x1b[31mred\x00\x9b\tb\nc", 100) == "a\\x1b[31mred\\x00\\x9b\tb\nc"
    assert visible("invoice\u202egpj.exe\u2066\u2069", 100) == "invoice\\u202egpj.exe\\u2066\\u2069"
    assert visible("half \ud83d", 100) == "half \\ud83d"
    assert visible("שלום مرحبا 😀 é\u200f", 100) == "שלום مرحبا 😀 é\u200f"


def test_texts_are_bounded() -> None:
    assert visible("x" * 10, 10) == "x" * 10
    assert visible("x" * 11, 10) == "x" * 9 + "…"
    assert one_line("  many \n\t blanks ", 100) == "many blanks"
    assert len(quick(lambda: one_line("ab " * 1_000_000, 300), 0.2)) <= 300


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://ann:s3cret@host/data.csv", "https://***@host/data.csv"),
        ("https://token@host:8080/x", "https://***@host:8080/x"),
        ("ftp://ann:p@ss@host/x", "ftp://***@host/x"),
        ("https://h/x?token=abc&part=1", "https://h/x?token=***&part=1"),
        ("https://h/x?X-Amz-Signature=ab%2Fc&X-Amz-Credential=AK%2F1", "https://h/x?X-Amz-Signature=***&X-Amz-Credential=***"),
        ("https://h/x?sv=1&sig=zz#access_token=yy", "https://h/x?sv=1&sig=***#access_token=***"),
        ("see https://a:b@h/x and s3://k:v@bucket/y.", "see https://***@h/x and s3://***@bucket/y."),
        ("https://h/reviews@5core.csv?part=2", "https://h/reviews@5core.csv?part=2"),
        ("ann@host.org and a?token=1", "ann@host.org and a?token=1"),
        ("/data/shop/clicks.csv", "/data/shop/clicks.csv"),
    ],
)  # fmt: skip
def test_passwords_are_masked(url: str, shown: str) -> None:
    assert masked(url) == shown


@pytest.mark.parametrize(
    "text",
    [
        "a://" * 20_000,
        "a" * 100_000 + "://",
        "?a://" + "token" * 20_000,
        "&x" * 50_000 + "://",
        "http://" + "a:" * 50_000,
    ],
    ids=range(5),
)
def test_masking_is_quick(text: str) -> None:
    quick(lambda: masked(text), 2)


def test_a_config_keeps_its_form() -> None:
    config = {"datasets": {"a": {"path": "https://u:p@h/x", "core": 5, "texts": ["b" * 3000, None, True]}}}
    shown = shown_config(config, 2000)
    assert shown["datasets"]["a"]["path"] == "https://***@h/x"
    assert len(shown["datasets"]["a"]["texts"][0]) == 2000
    assert shown["datasets"]["a"]["texts"][1:] == [None, True]
    assert config["datasets"]["a"]["path"] == "https://u:p@h/x"


def test_values_that_stand_many_times_do_not_swell() -> None:
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
    )
    shown = shown_config(yaml.safe_load(text), 100)
    assert shown["a11"][0] is shown["a11"][8]
    assert len(yaml.safe_dump(shown)) < 10_000
