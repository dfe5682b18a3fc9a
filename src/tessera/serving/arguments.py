"""What a person may hand to a loaded run: a wrong kind of thing is told in a line, with what was expected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import TypeGuard

import numpy as np
import pandas as pd

from tessera.settings.base import shown_value


def check_length(k: object) -> None:
    """Refuse what is no length of a list.

    Raises:
        ValueError: it is no whole number, or below 1.
    """
    if isinstance(k, bool) or not isinstance(k, Integral) or k < 1:
        raise ValueError(f"k: expected a whole number, 1 or more (got {k!r})")


def check_seen(seen: object) -> None:
    """Refuse what is neither true nor false: a text such as "no" would count as true.

    Raises:
        TypeError: it is no boolean.
    """
    if not isinstance(seen, bool | np.bool_):
        raise TypeError(f"seen: expected True or False (got {shown(seen)})")


def check_history(history: Sequence[object]) -> None:
    """Refuse a history with a list among its ids, as the pairs are that `DataFrame.groupby` gives.

    Raises:
        TypeError: so it is.
    """
    for number, entry in enumerate(history):
        if is_list(entry):
            kind = _kind(entry)
            raise TypeError(f"a history is a list of item ids, oldest first (its entry {number} is a {kind})")


def check_stock(items: object) -> None:
    """Refuse what holds no ids one by one: a text would be read letter by letter, a frame by the names of its columns.

    Raises:
        TypeError: it is no list of ids.
    """
    if not is_list(items) or hasattr(items, "columns"):
        raise TypeError(f"items: expected a list of item ids, e.g. ['SKU1', 'SKU7'] (got {shown(items)})")


def check_attributes(attribute: object) -> None:
    """Refuse attributes without values.

    Raises:
        TypeError: they are no mapping.
    """
    if not isinstance(attribute, Mapping):
        raise TypeError(f"attribute: expected names and values, e.g. {{'brand': 'Acme'}} (got {shown(attribute)})")


def check_products(products: object, vectors: object) -> None:
    """Refuse what does not tell of new items as `Recommender.with_items` reads it.

    Raises:
        TypeError: the products are no frame, or the vectors no mapping.
    """
    if not isinstance(products, pd.DataFrame):
        kind = _kind(products)
        raise TypeError(f"new items: expected a pandas DataFrame with the columns item and title (got {kind})")
    if vectors is not None and not isinstance(vectors, Mapping):
        kind = type(vectors).__name__
        raise TypeError(f"vectors: expected rows by the name of a table, e.g. {{'text': rows}} (got {kind})")


def shown(value: object) -> str:
    """A wrong value in a message of one line; of a frame, whose text is a table, what it is."""
    return f"a {type(value).__name__}" if hasattr(value, "columns") else shown_value(value)


def _kind(value: object) -> str:
    """The class of a value, with its library where it has one: there are several frames."""
    library, name = type(value).__module__.partition(".")[0], type(value).__name__
    return name if library == "builtins" else f"{library}.{name}"


def is_list(value: object) -> TypeGuard[Iterable[object]]:
    """Whether these are several things; a text is one."""
    return isinstance(value, Iterable) and not isinstance(value, (str, bytes))


def has_order(value: object) -> bool:
    """Whether these are things one after the other, and no set, no mapping, no frame of columns."""
    return is_list(value) and not isinstance(value, (set, frozenset, Mapping)) and not hasattr(value, "columns")
