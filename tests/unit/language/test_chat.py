"""Messages through the chat templates that models bring: no system role, content in parts, thinking aloud."""

from __future__ import annotations

from typing import Any

import pytest
from test_tokens import tokenizer
from transformers import PreTrainedTokenizerFast

from tessera.language.tokens import PLACE, chat_text

PLAIN = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<say>{% endif %}"
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + PLAIN
PARTS = (
    "{% for m in messages %}<{{ m.role }}>{% for p in m.content %}"
    "{% if p.type == 'image' %}[picture]{% else %}{{ p.text }}{% endif %}{% endfor %}{% endfor %}"
)
THINKING = PLAIN + "{% if enable_thinking is not defined or enable_thinking %}<think>{% endif %}"
DEAF = "{% for m in messages %}<{{ m.role }}>{% endfor %}"


def of(template: str) -> PreTrainedTokenizerFast:
    return tokenizer(template)


def tell(template: str, **more: Any) -> str:
    return chat_text(of(template), f"red {PLACE}", **more)


def test_a_system_message_stands_before_or_in_the_request() -> None:
    assert tell(PLAIN, system="you are") == f"<system>you are<user>red {PLACE}<say>"
    assert tell(NO_SYSTEM, system="you are") == f"<user>you are\nred {PLACE}<say>"
    assert tell(NO_SYSTEM, answer=False) == f"<user>red {PLACE}"


def test_content_in_parts() -> None:
    assert tell(PARTS, system="you are") == f"<system>you are<user>red {PLACE}"
    assert tell(PARTS, pictured=True) == f"<user>[picture]red {PLACE}"


def test_nobody_thinks_aloud() -> None:
    assert "<think>" not in tell(THINKING)


def test_no_text_is_read_in_another_way_tomorrow() -> None:
    """Llama 3 tells the day in its system message."""
    dated = "Today Date: {{ strftime_now('%d %b %Y %H:%M:%S.%f') }}|" + PLAIN
    assert tell(dated) == tell(dated) == f"Today Date: 26 Jul 2024 00:00:00.000000|<user>red {PLACE}<say>"
    said = of(dated).apply_chat_template([{"role": "user", "content": "red"}], tokenize=False)
    assert "26 Jul 2024" not in str(said), "the clock of this process goes on"


def test_a_template_that_drops_the_message_is_refused() -> None:
    with pytest.raises(ValueError, match="chat template does not tell what a user asks: it drops the message"):
        tell(DEAF, system="you are")
