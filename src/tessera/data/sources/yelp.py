"""Yelp open data: reviews or tips, and businesses, JSON lines; the schema of 2015 and the present one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tessera.data.files import find
from tessera.data.identifiers import id_text
from tessera.data.log import Item, RawLog
from tessera.data.sources.json_lines import check_keys, first_objects, json_objects, json_rows, json_schema
from tessera.data.text import as_text, as_title
from tessera.settings.sources.yelp import YelpSource

_COLUMNS = {"user": "user_id", "item": "business_id", "timestamp": "date", "rating": "stars"}


def read_interactions(settings: YelpSource, log: RawLog) -> None:
    """Hand the reviews or tips over; tips have no rating."""
    json_rows(find(settings.path, settings.sha256), _COLUMNS, log, settings.encoding)


def check(settings: YelpSource) -> None:
    """Read the first reviews or tips, and refuse what has other keys."""
    json_schema(find(settings.path, settings.sha256), _COLUMNS, settings.encoding)


def check_items(settings: YelpSource) -> None:
    """Read the first businesses, and refuse what has no ids."""
    if settings.businesses is not None:
        path = find(settings.businesses)
        check_keys(path, {"item": "business_id"}, first_objects(path, settings.encoding))


def read_items(settings: YelpSource, log: RawLog) -> Iterator[Item]:
    """Name, categories, place and attributes of the businesses; of those that the log does not know only the id."""
    if settings.businesses is None:
        return
    for business in json_objects(find(settings.businesses), log, encoding=settings.encoding):
        raw_id = id_text(business.get("business_id")) or ""
        if not log.knows(raw_id):
            yield Item(raw_id)  # counted; what it says is not looked at
        else:
            yield Item(raw_id, as_title(business.get("name")), _attributes(business))


def _attributes(business: dict[str, Any]) -> dict[str, str]:
    texts = {name: as_text(business.get(name)) for name in ("categories", "neighborhoods", "city", "state")}
    texts["attributes"] = as_text(_true_only(business.get("attributes")))
    return {name: text for name, text in texts.items() if text}


def _true_only(value: Any) -> Any:
    """What a business has: of nested yes/no lists only the yes."""
    if not isinstance(value, dict):
        return value
    kept = {key: _true_only(entry) for key, entry in value.items()}
    kept = {key: entry for key, entry in kept.items() if entry not in (False, None, "False", "None", "no", "none", {})}
    if kept and all(entry in (True, "True") for entry in kept.values()):
        return list(kept)
    return {key: "yes" if entry in (True, "True") else entry for key, entry in kept.items()}
