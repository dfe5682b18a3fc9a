"""Chat templates that loop for ever or fill the memory are ended, and told."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import psutil
import pytest
from test_tokens import tokenizer

from tessera.language import bounded as module
from tessera.language.bounded import BoundError, RefusedError, bounded
from tessera.language.tokens import PLACE, chat_text

ENDLESS = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "a power": "{{ 10 ** 10 ** 8 }}",
    "a long text": "{{ 'a' * 3000000000 }}",
    "a text that doubles": (
        "{% set n = namespace(t='abcdefgh') %}{% for a in range(40) %}{% set n.t = n.t ~ n.t %}{% endfor %}"
    ),
    "a long answer": "{% for a in range(2000) %}" + "words " * 200 + "{% endfor %}",
    "padding": "{{ '%2000000000d' % 1 }}",
}


@pytest.mark.parametrize("template", ENDLESS.values(), ids=ENDLESS)
def test_a_template_without_end_is_ended(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 1)
    before = set(psutil.Process().children())  # of other tests
    began = time.monotonic()
    with pytest.raises(ValueError, match="chat template") as raised:
        chat_text(tokenizer(template), f"red {PLACE}")
    assert time.monotonic() - began < 60
    assert "\n" not in str(raised.value)
    assert set(psutil.Process().children()) <= before  # nothing is left behind


def test_a_macro_that_calls_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="RecursionError"):
        chat_text(tokenizer("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"), f"red {PLACE}")


def test_what_is_made_comes_back_and_nothing_else_changes() -> None:
    kept: list[int] = []

    def work() -> str:
        kept.append(1)
        return "Ünï\u2028漢\x00字" * 100_000

    assert bounded(work, "it") == "Ünï\u2028漢\x00字" * 100_000
    assert kept == []


def test_what_goes_wrong_is_told() -> None:
    def fails() -> str:
        raise KeyError("eos")

    def dies() -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return ""

    def exits() -> Any:
        raise SystemExit(0)

    with pytest.raises(RefusedError, match="KeyError: 'eos'"):
        bounded(fails, "it")
    for work in (dies, exits):
        with pytest.raises(BoundError, match="it takes more than 10 s, 512 MiB or 1,000,000 characters"):
            bounded(work, "it")


def test_time_by_the_clock_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.2)

    def sleeps() -> str:
        time.sleep(60)
        return ""

    with pytest.raises(BoundError):
        bounded(sleeps, "it")
