"""Markup and code in texts, told by their form. Every look at a text takes time in proportion to its length."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

WINDOW = 8192
"""Characters that one tag may have."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# elements that stand alone, or whose end may be left out
_ALONE = _names(
    "area base br col embed hr img input link meta param source track wbr p li dt dd tr td th thead tbody tfoot option "
    "optgroup colgroup rp rt"
)
# names that are no English words: in small letters they are markup without an end, too
_FORMAL = _names("b i u em strong span div ul ol dl font h1 h2 h3 h4 h5 h6 table tt sub sup pre")
_WORDS = _names(
    "a abbr acronym address applet article aside audio big blockquote body button canvas caption center cite code data "
    "datalist del details dfn dialog dir fieldset figcaption figure footer form frame frameset head header hgroup html "
    "iframe ins kbd label legend main map mark menu meter nav nobr noframes noscript object output picture progress q "
    "ruby s samp script search section select slot small strike style summary svg path template textarea time title "
    "var video"
)
_KNOWN = _ALONE | _FORMAL | _WORDS
_CODE = ("script", "style")

_START = re.compile(
    r"<(?:(?P<end>/)?(?P<name>[a-zA-Z][a-zA-Z0-9]*+(?::[a-zA-Z][\w-]*+)?)(?=[\s/>]|\Z)"
    r"|(?P<comment>!--)|(?P<declared>(?:![dD][oO][cC]|\?xml|\?php)[^<>]{0,1000}+\??>))"
)
_BEGINS = re.compile(r"<([a-zA-Z][a-zA-Z0-9]*+(?::[\w-]++)?)(?=[\s/>])")
_ENDS = re.compile(r"</([a-zA-Z][a-zA-Z0-9]*+(?::[\w-]++)?)\s*+>")
# No group is possessive: Python before 3.11.5 loses its place in one whose parts may be tried in several ways. Parts
# begin and end so that they can be taken in one way alone, and are themselves possessive: no text takes long.
_ATTRIBUTE = re.compile(r"""[\s/]++[^\s"'<>/=]++(?:\s*+=\s*+(?:"[^"]*+"|'[^']*+'|[^\s"'<>]++))?""")
_CLOSE = re.compile(r"[\s/]*+(>)?")
_VALUED = re.compile(r"""[^\s"'<>/=]\s*+=\s*+(?:"[^"]*+"|'[^']*+'|[^\s"'<>]++)""")
_VALUE = re.compile(r"""\s*+=\s*+(["']?)""")
# what is left of a tag whose beginning was cut off
_TAIL = re.compile(r"""\s*+(?:[a-zA-Z][\w:-]*+=(?:"[^"<>]*+"|'[^'<>]*+')\s*+)+/?>""")

_PROPERTIES = (
    r"(?:color|background|border|display|position|float|clear|width|height|margin|padding|font|line-height|text-align|"
    r"text-decoration|overflow|visibility|opacity|z-index|cursor|white-space|vertical-align|list-style|box-shadow|"
    r"(?:min|max)-(?:width|height)|top|left|right|bottom|content|outline|transform|transition)"
)
_DECLARATION = rf"\s*+(?:-\w++-)?{_PROPERTIES}(?:-[a-z-]++)?\s*+:[^{{}};]++"
_RULE = rf"[^{{}}]{{1,2000}}+\{{{_DECLARATION}(?:;\s*+(?:[\w-]++\s*+:[^{{}};]++)?)*\s*+\}}\s*+"
# rules for classes or ids: two or more, or one without any blank
_STYLE_SHEET = re.compile(rf"\s*+(?=[.#][A-Za-z_-])(?:(?:{_RULE}){{2,}}|(?=\S++\Z){_RULE}\Z)")
# the first statement of a program
_PROGRAM = re.compile(
    r"\s*+(?:var\s++[A-Za-z_$][\w$]*+\s*+=[^;=][^;]*+;"
    r"|(?:window|document)\.[\w$.]++\s*+=[^;=][^;]*+;"
    r"|[!(]*+function\b\s*+[\w$]*+\s*+\(\s*+(?:[A-Za-z_$][\w$]*+\s*+(?:,\s*+)?)*\)\s*+\{)"
)


class _Rest(NamedTuple):
    """A tag behind its name."""

    attributes: str
    close: bool
    """Whether its `>` comes."""
    start: int
    end: int
    text: str
    """All of it."""


def _rest(text: str, start: int) -> _Rest:
    """What follows the name of a tag, as far as `WINDOW`."""
    place, last = start, start + WINDOW
    while attribute := _ATTRIBUTE.match(text, place, last):
        place = attribute.end()
    close = _CLOSE.match(text, place, last)
    end = place if close is None else close.end()
    return _Rest(text[start:place], close is not None and close[1] is not None, start, end, text[start:end])


def is_code(text: str, start: int = 0) -> bool:
    """Whether the text from there on is a style sheet or begins as a program does."""
    return bool(_PROGRAM.match(text, start) or _STYLE_SHEET.match(text, start))


def strip_markup(text: str) -> str:
    """The text with a blank in place of each piece of markup; of scripts and style sheets nothing stays.

    A tag is markup when it has an attribute with a value, ends an element, has its own end further on, is of an element
    that needs none, is one of `b i span div ...` in small letters, or is all there is. A tag that breaks off is markup
    when it has an attribute with a value. All else stays as it is.
    """
    if "<![CDATA[" in text:
        text = text.replace("<![CDATA[", " ").replace("]]>", " ")
    if "<" not in text and not _TAIL.match(text):
        return text
    return "".join(_pieces(text))


def _pieces(text: str) -> Iterator[str]:
    ends = _Ends(text)
    tail = _TAIL.match(text)
    kept = place = tail.end() if tail else 0
    while match := _START.search(text, place):
        end = _end_of(text, match, ends)
        if end is None:
            place = match.end()
            continue
        yield text[kept : match.start()]
        yield " "
        kept = place = end
    yield text[kept:]


class _Ends:
    """Where elements begin first and end last in a text, by name."""

    def __init__(self, text: str) -> None:
        self.last = {match[1].lower(): match.start() for match in _ENDS.finditer(text)}
        begins = {match[1].lower(): match.start() for match in reversed(list(_BEGINS.finditer(text)))}
        self.first = {name: begins[name] for name in self.last.keys() & begins.keys()}

    def behind(self, name: str, place: int) -> bool:
        """Whether an element of this name ends behind a place."""
        return self.last.get(name, -1) >= place

    def begun(self, name: str, place: int) -> bool:
        """Whether one begins before it."""
        return self.first.get(name, place) < place


def _end_of(text: str, match: re.Match[str], ends: _Ends) -> int | None:
    """Where the piece of markup ends that begins here; None where it is none."""
    if match["declared"]:
        return match.end()
    if match["comment"]:
        end = text.find("-->", match.end())
        return len(text) if end < 0 else end + 3
    name = match["name"].lower()
    rest = _rest(text, match.end())
    if not rest.close:
        return _cut_off(text, match, name, rest)
    if not _is_tag(match, name, rest, ends):
        return len(text) if name in _CODE and is_code(text, rest.end) else None
    if match["end"] or name not in _CODE:
        return rest.end
    if not ends.behind(name, rest.end):
        return len(text)
    closing = re.compile(rf"</{name}\s*+>", re.IGNORECASE).search(text, rest.end)
    return closing.end() if closing else len(text)


def _is_tag(match: re.Match[str], name: str, rest: _Rest, ends: _Ends) -> bool:
    """Whether what has the form of a whole tag is one."""
    if match["end"]:
        return name in _KNOWN or ":" in name or ends.begun(name, match.start())
    if _VALUED.search(rest.attributes):
        return True
    if name in _ALONE or ends.behind(name, match.end()):
        return True
    if rest.text.endswith("/>"):
        return name in _KNOWN
    if rest.attributes or name not in _KNOWN:
        return ":" in name and not rest.attributes
    return match["name"].islower() and (
        name in _FORMAL or match.string.strip() == match.string[match.start() : rest.end]
    )


def _cut_off(text: str, match: re.Match[str], name: str, rest: _Rest) -> int | None:
    """Where a tag without `>` ends: behind its last attribute with a value, or with the text; None where it is none."""
    if name not in _KNOWN:
        return None
    at_end = rest.end == len(text)
    if match["end"]:
        return len(text) if at_end else None
    value = _VALUE.match(text, rest.end) if rest.attributes.strip(" /") else None
    if value and (value.end() == len(text) or (value[1] and rest.end + WINDOW >= len(text))):
        return len(text)  # a value that is missing, or that nothing closes: what is left of the text belongs to it
    valued = list(_VALUED.finditer(rest.attributes))
    if valued:
        return rest.start + valued[-1].end()
    formal = name in _FORMAL and len(name) > 2 and match["name"].islower()
    return len(text) if at_end and formal and not rest.attributes.strip() else None
