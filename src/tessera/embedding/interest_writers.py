"""Who writes down what a history shows: counts of attributes and words, or a language model that answers in JSON."""

from __future__ import annotations

import json
import math
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from tessera.artifacts.interests import Interest
from tessera.language.prompts import Attributes, attribute_text

_WORD = re.compile(r"[^\W\d_]{3,}")
_SHOWN = 3
"""Titles in the description of what was counted."""
_BRACKETS = 64
"""Places in an answer where its JSON may begin."""
_SHORT = 3
"""Words of an attribute that is compared as a whole."""
_RARE, _COMMON = 0.01, 1 / 3
"""Shares of the catalogue that a feature is held by, two items at least."""


class Writer(ABC):
    """What writes down the interests of a user."""

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()
        """Why nothing was written, or could be read."""

    @abstractmethod
    def write(self, history: Sequence[int]) -> list[Interest] | None:
        """The interests that a history (n,) of items, oldest first, shows; None where nothing can be said."""


def title_of(attributes: Attributes) -> str:
    """How an item is told in a list: by its title, or, where it has none, by all else."""
    return dict(attributes).get("title") or attribute_text(attributes)


# ---------------------------------------------------------------- counts


class Counts(Writer):
    """Interests are the attributes and words that most items of a history share and few of the catalogue.

    One after the other: of the items that no interest explains yet, the feature that tells most of them from others,
    by count times the logarithm of its rarity; one that two of them share goes before one that a single item has. What
    hardly any item has, or every third, is no feature.
    """

    def __init__(self, attributes: Mapping[int, Attributes], most: int) -> None:
        super().__init__()
        self.attributes, self.most = attributes, most
        features = {item: _features(pairs) for item, pairs in attributes.items()}
        self.holders = Counter(feature for own in features.values() for feature in own)
        rare, common = max(2.0, _RARE * len(features)), _COMMON * len(features)
        self.features = {
            item: [feature for feature in own if rare <= self.holders[feature] <= common]
            for item, own in features.items()
        }

    def write(self, history: Sequence[int]) -> list[Interest] | None:
        """See `Writer.write`."""
        known = [item for item in dict.fromkeys(history) if self.features.get(item)]
        interests: list[Interest] = []
        left = set(known)
        while left and len(interests) < self.most:
            counts = Counter(feature for item in left for feature in self.features[item])
            best = min(counts, key=lambda feature: (counts[feature] < 2, -self._worth(feature, counts), feature))
            shown = [item for item in known if best in self.features[item]]
            titles = dict.fromkeys(title_of(self.attributes[item]) for item in reversed(shown))
            interests.append(Interest(best, "; ".join(list(titles)[:_SHOWN]), shown))
            left -= set(shown)
        if not interests:
            self.reasons["no text that other items share"] += 1
        return interests or None

    def _worth(self, feature: str, counts: Mapping[str, int]) -> float:
        return counts[feature] * math.log(len(self.features) / self.holders[feature])


def _features(attributes: Attributes) -> list[str]:
    """`kind lamp` of short attributes, and the words of the title and of long ones."""
    texts = [value for name, value in attributes if name == "title" or len(value.split()) > _SHORT]
    pairs = [f"{name} {value}" for name, value in attributes if name != "title" and value not in texts]
    return list(dict.fromkeys([*pairs, *_WORD.findall(" ".join(texts).lower())]))


# ---------------------------------------------------------------- a language model


class _Said(BaseModel):
    """An interest as a model must write it."""

    model_config = ConfigDict(strict=True, extra="ignore")

    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]
    description: Annotated[str, StringConstraints(strip_whitespace=True, max_length=1000)] = ""
    items: list[int] = Field(min_length=1)


_SAID = TypeAdapter(list[_Said])


class NoInterestsError(ValueError):
    """An answer that holds no interests; the text says why, as the model is told."""


def read_answer(answer: str, history: Sequence[int], most: int) -> list[Interest]:
    """The interests of an answer, whatever stands around its JSON; the first `most` of them.

    Args:
        answer: a list of `{"name", "description", "items"}`, or an object that holds one as `interests`.
        history: (n,) the items whose numbers, from 1, are meant by `items`.
        most: interests that are kept.
    Raises:
        NoInterestsError: there is no JSON in it, or not what was asked for.
    """
    said = _json_in(answer)
    try:
        interests = _SAID.validate_python(said.get("interests") if isinstance(said, dict) else said)
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        raise NoInterestsError(f"interests{where}: {first['msg'][:200]}") from None
    if not interests:
        raise NoInterestsError("the list of interests is empty")
    for one in interests:
        if wrong := [number for number in one.items if not 1 <= number <= len(history)]:
            raise NoInterestsError(f"items: {wrong[0]} is no number of the list, which has 1 to {len(history)}")
    return [
        Interest(one.name, one.description, list(dict.fromkeys(history[number - 1] for number in one.items)))
        for one in interests[:most]
    ]


def _json_in(answer: str) -> Any:
    """The first list of objects, or object that holds interests, in a text; where there is neither, an empty list."""
    decoder, empty = json.JSONDecoder(), False
    for match in islice(re.finditer(r"[\[{]", answer), _BRACKETS):
        try:
            said, _ = decoder.raw_decode(answer, match.start())
        except (ValueError, RecursionError):
            continue
        if isinstance(said, dict) and "interests" in said:
            return said
        if isinstance(said, list) and any(isinstance(part, dict) for part in said):
            return said
        empty |= said == []
    if empty:
        return []
    raise NoInterestsError("the answer holds no JSON list of interests")


def question(titles: Sequence[str], domain: str, most: int) -> str:
    """What is asked of a history, oldest first."""
    listed = "\n".join(f"{number}. {title}" for number, title in enumerate(titles, 1))
    return (
        f"A person chose these items ({domain}), oldest first:\n{listed}\n"
        f"Which interests of the person explain them? Name {most} at most, the strongest first. "
        'Answer with JSON alone, a list such as [{"name": "a few words", "description": "one sentence", '
        '"items": [1, 2]}], where items are the numbers of the items above that show the interest.'
    )


def again(asked: str, why: str) -> str:
    """The question once more, after an answer that could not be read."""
    return f"{asked}\nYour last answer could not be read ({why}). Answer with JSON alone."


class Written(Writer):
    """Interests are what a language model says of a history; an answer that cannot be read is asked for again."""

    def __init__(
        self, attributes: Mapping[int, Attributes], domain: str, most: int, attempts: int, say: Callable[[str], str],
        fits: Callable[[str], bool] = lambda _: True,
    ) -> None:  # fmt: skip
        """
        Args:
            attributes: what is told of items.
            domain: what kind of items they are.
            most: interests of a user.
            attempts: times that is asked.
            say: the answer to a question.
            fits: whether the model can read a question to its end; the oldest items are left out until it can.
        """
        super().__init__()
        self.attributes, self.domain, self.most, self.attempts = attributes, domain, most, attempts
        self.say, self.fits = say, fits

    def write(self, history: Sequence[int]) -> list[Interest] | None:
        """See `Writer.write`."""
        known = [item for item in history if item in self.attributes]
        while known and not self.fits(again(self._ask(known), "x" * 300)):
            known = known[1:]
        if not known:
            self.reasons["no text, or none that fits"] += 1
            return None
        asked = self._ask(known)
        prompt = asked
        for _ in range(self.attempts):
            try:
                return read_answer(self.say(prompt), known, self.most)
            except NoInterestsError as error:
                self.reasons[re.sub(r"\d+", "N", str(error))] += 1
                prompt = again(asked, str(error))
        return None

    def _ask(self, items: Sequence[int]) -> str:
        return question([title_of(self.attributes[item]) for item in items], self.domain, self.most)
