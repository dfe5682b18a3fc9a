"""Texts of users where a person reads them: visible, bounded, and without passwords."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# what changes a terminal or the order of letters and is not seen: C0 and C1 without tab and line ends, overrides and
# isolates of the writing direction, halves of surrogate pairs, which no file can hold
_UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_USER = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,20}://)[^\s/?#]{1,1000}@")
_SECRET = re.compile(
    r"""([?&;#][\w.%-]{0,60}(?:token|key|sig|secret|passw|pwd|auth|credential|session|sas|code)[\w.%-]{0,60}=)[^&;#\s"']+""",
    re.IGNORECASE,
)
MASK = "***"


def visible(text: str, most: int) -> str:
    """The text with at most so many characters, `…` at a cut, and with unseen characters as `\\x1b` or `\\u202e`."""
    if len(text) > most:
        text = text[: max(most - 1, 0)].rstrip() + "…"
    return _UNSEEN.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def one_line(text: str, most: int) -> str:
    """As `visible`, with single blanks in place of white space."""
    return visible(" ".join(text[: 8 * most].split()), most)


def masked(text: str) -> str:
    """The text with `***` for users and passwords in its URLs, and for parameters as `token=` or `X-Amz-Signature=`."""
    if "://" not in text:
        return text
    return _SECRET.sub(rf"\1{MASK}", _USER.sub(rf"\1{MASK}@", text))


def shown_url(url: str) -> str:
    """A URL as messages tell it: masked, and without its query, which may hold a token of any name."""
    return re.sub(r"\?.*", "?...", masked(url), flags=re.DOTALL)


def shown_config(config: Any, most: int, _seen: dict[int, Any] | None = None) -> Any:
    """A config whose texts are masked and bounded; what stands in it several times stays one value."""
    seen = {} if _seen is None else _seen
    if isinstance(config, str):
        return visible(masked(config), most)
    if id(config) in seen:
        return seen[id(config)]
    if isinstance(config, Mapping):
        made: Any = {}
        seen[id(config)] = made
        made.update({shown_config(key, most, seen): shown_config(value, most, seen) for key, value in config.items()})
        return made
    if isinstance(config, list | tuple):
        made = []
        seen[id(config)] = made
        made.extend(shown_config(entry, most, seen) for entry in config)
        return made
    return config
