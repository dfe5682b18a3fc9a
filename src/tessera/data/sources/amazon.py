"""Amazon reviews and product metadata (McAuley lab), 2014, 2018 and 2023: JSON lines, packed or not.

Metadata of 2014 are Python literals, one a line. Titles, descriptions and prices hold pieces of web pages; ids repeat.
He and McAuley, WWW 2016; Ni et al., EMNLP 2019; Hou et al., Bridging Language and Items for Retrieval and
Recommendation, 2024.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tessera.data.files import find
from tessera.data.identifiers import id_text
from tessera.data.log import Item, RawLog
from tessera.data.popularity_fields import without_counts
from tessera.data.sources.json_lines import check_keys, first_objects, json_objects, json_rows, json_schema
from tessera.data.text import as_text, as_title
from tessera.settings.sources.amazon_base import AmazonSource

_OLD = {"user": "reviewerID", "item": "asin", "timestamp": "unixReviewTime", "rating": "overall"}
_NEW = {"user": "user_id", "item": "parent_asin", "timestamp": "timestamp", "rating": "rating"}
# attribute -> keys that the three generations use for it; the first that says something counts
_ATTRIBUTES = {
    "brand": ("brand", "store"),
    "category": ("category", "categories", "main_cat", "main_category"),
    "price": ("price",),
    "features": ("feature", "features"),
    "description": ("description",),
    "details": ("details",),
}


def _columns(settings: AmazonSource) -> dict[str, str]:
    return _NEW if settings.source == "amazon_2023" else _OLD


def read_interactions(settings: AmazonSource, log: RawLog) -> None:
    """Hand the reviews over."""
    json_rows(find(settings.path, settings.sha256), _columns(settings), log, settings.encoding)


def check(settings: AmazonSource) -> None:
    """Read the first reviews, and refuse what has other keys."""
    json_schema(find(settings.path, settings.sha256), _columns(settings), settings.encoding)


def check_items(settings: AmazonSource) -> None:
    """Read the first products, and refuse what has no ids."""
    if settings.metadata is not None:
        path = find(settings.metadata)
        check_keys(path, {"item": _product_key(settings)}, first_objects(path, settings.encoding))


def _product_key(settings: AmazonSource) -> str:
    return "parent_asin" if settings.source == "amazon_2023" else "asin"


def read_items(settings: AmazonSource, log: RawLog) -> Iterator[Item]:
    """Products of the metadata file; of those that the log does not know only the id."""
    if settings.metadata is None:
        return
    path = find(settings.metadata)
    key = _product_key(settings)
    for product in json_objects(path, log, settings.source == "amazon_2014", settings.encoding):
        raw_id = id_text(product.get(key)) or ""
        if not log.knows(raw_id):
            yield Item(raw_id)  # counted; what it says is not looked at
        else:
            attributes = {name: _first(product, keys) for name, keys in _ATTRIBUTES.items()}
            texts = {name: text for name, text in attributes.items() if text}
            yield Item(raw_id, as_title(product.get("title")), texts, list(_pictures(product)))


def _first(product: dict[str, Any], keys: tuple[str, ...]) -> str:
    for key in keys:
        value = product.get(key)
        if key == "description" and isinstance(value, list):
            text = as_text(value, " ")
        elif key in ("category", "categories"):
            text = as_text(value, " > ")
        elif key == "details":
            text = as_text(_details(value))
        else:
            text = as_text(value)
        if text:
            return text
    return ""


def _details(value: Any) -> Any:
    """The table of a product's page, which some files hold as a text of JSON, without its rank by sales and reviews."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return value
    return without_counts(value) if isinstance(value, dict) else value


def _pictures(product: dict[str, Any]) -> Iterator[str]:
    """File names of the product's pictures, as they are when downloaded under their own names."""
    urls: list[Any] = [product.get("imUrl")]
    for key in ("imageURLHighRes", "imageURL"):
        value = product.get(key)
        urls += value if isinstance(value, list) else [value]
    for image in product.get("images") or []:
        if isinstance(image, dict):
            urls += [image.get(size) for size in ("hi_res", "large", "thumb")]
    for url in urls:
        if isinstance(url, str) and url:
            yield url.rsplit("/", 1)[-1]
