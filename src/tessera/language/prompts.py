"""What a language model is told of an item: a sentence about the domain, a newline, then `name is value; ...`.

The form of LLMEmb and ReaEmb: attributes joined by semicolons, values without newlines and semicolons, each cut to 100
characters. Captions are told whole: a model's own limit of tokens bounds them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tessera.artifacts.tables import check_ids, read_table
from tessera.settings.base import ConfigError, did_you_mean
from tessera.settings.language import ItemPrompt

Attributes = list[tuple[str, str]]

REQUEST = "Describe the following item. The item information is:"
"""What the user's message of a chat prompt asks before the item is told (ReaEmb)."""

_END = re.compile(r"[.!?](?=\s|$)")
_SHORT = frozenset({
    "dr", "mr", "mrs", "ms", "st", "prof", "rev", "gen", "col", "lt", "sgt", "capt", "jr", "sr", "vs", "etc",
    "approx", "inc", "ltd", "corp", "dept", "oz", "lb", "lbs", "sq", "qty", "pcs",
})  # fmt: skip
"""Words that a full stop cuts short: no sentence ends with it."""
_INITIALS = re.compile(r"[A-Z]|[A-Za-z](\.[A-Za-z])+")
_LOOK_BACK = 40
_SPACE = re.compile(r"\s+")


def item_attributes(
    catalogue: str | Path, prompt: ItemPrompt, captions: Mapping[str, Path] | None = None
) -> dict[int, Attributes]:
    """What is told of each item, ascending by id.

    Args:
        catalogue: items.parquet of the dataset, in any row order.
        prompt: which attributes, and how long.
        captions: name -> captions Parquet; told last, each under its name.
    Returns:
        item -> (name, value) pairs; items of which nothing is known are absent.
    Raises:
        ConfigError: the prompt names an attribute that no item has.
    """
    table = read_table(catalogue, "items", ["item", "title", "attributes"]).sort_by("item")
    described: dict[int, Attributes] = {}
    for item, title, attributes in zip(*(table.column(name).to_pylist() for name in table.column_names), strict=True):
        described[item] = [("title", title or ""), *((name, value or "") for name, value in attributes or [])]
    known = {name for pairs in described.values() for name, _ in pairs}
    default = ItemPrompt()
    for key in ("attributes", "first_sentence"):
        for wanted in getattr(prompt, key) or ():
            # what the defaults name need not be there
            if wanted not in known and wanted not in (getattr(default, key) or ()):
                raise ConfigError(f"prompt.{key}: no item has the attribute {wanted!r}{did_you_mean(wanted, known)}")
    if prompt.attributes is not None:
        described = {item: _chosen(pairs, prompt.attributes) for item, pairs in described.items()}
    cut = {item: [(name, _value(name, value, prompt)) for name, value in pairs] for item, pairs in described.items()}
    for name, path in (captions or {}).items():
        said = read_table(path, "captions")
        check_ids(path, said, "item", len(described))
        for item, text in zip(said.column("item").to_pylist(), said.column("text").to_pylist(), strict=True):
            cut[item].append((name, _plain(text or "")))
    kept = {item: [(name, value) for name, value in pairs if value] for item, pairs in cut.items()}
    return {item: pairs for item, pairs in kept.items() if pairs}


def _chosen(pairs: Attributes, wanted: Sequence[str]) -> Attributes:
    have = dict(pairs)
    return [(name, have[name]) for name in wanted if name in have]


def _value(name: str, value: str, prompt: ItemPrompt) -> str:
    """One attribute's value: no newline, no semicolon, the first sentence where asked, not too long."""
    value = _SPACE.sub(" ", value).strip()
    if name in prompt.first_sentence:
        value = first_sentence(value)  # before semicolons become full stops, which would end a sentence
    return _plain(value)[: prompt.max_characters].strip()


def first_sentence(text: str) -> str:
    """The text up to the end of its first sentence: no end is a full stop after initials (`J. R. R.`, `T.V.`) or a word
    cut short (`Dr.`, `8 oz.`)."""
    for end in _END.finditer(text):
        before = text[max(0, end.start() - _LOOK_BACK) : end.start()]
        if end[0] != "." or not _is_cut_short(before, text[end.end() :][:_LOOK_BACK].lstrip()[:1]):
            return text[: end.end()]
    return text


def _is_cut_short(before: str, after: str) -> bool:
    """Whether a full stop behind this text, and before a sign that is no blank, ends a word and no sentence."""
    word = re.split(r"[\s(\[\"'/]", before)[-1]
    rest = before[: len(before) - len(word)].rstrip()
    if _INITIALS.fullmatch(word):
        return rest[-1:] not in (";", ",")  # `A; B; C.` is a list
    if word.endswith("."):  # dots that leave out
        return after.islower()
    if word.lower() in ("in", "ft"):
        return rest[-1:].isdigit()
    return after.isdigit() if word.lower() in ("no", "nos", "vol", "fig") else word.lower() in _SHORT


def _plain(value: str) -> str:
    """Without newlines and semicolons, which separate attributes."""
    return _SPACE.sub(" ", value.replace(";", ".")).strip()


def domain_sentence(domain: str) -> str:
    """The sentence before the attributes."""
    return f"The {domain} has the following attributes."


def attribute_text(attributes: Sequence[tuple[str, str]]) -> str:
    """`title is Heat; genre is crime`."""
    return "; ".join(f"{name} is {value}" for name, value in attributes)
