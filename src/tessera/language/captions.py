"""What a model says of every item: greedy, in shards that survive a kill."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tessera.artifacts.files import read_json, write_json
from tessera.artifacts.logs import Progress, log
from tessera.artifacts.tables import describe, read_table, write_table
from tessera.language.answers import answer
from tessera.language.models import LanguageModel, LanguageModelError
from tessera.language.pictures import PictureError, open_picture
from tessera.language.prompts import item_attributes
from tessera.language.questions import Pixels, Question, lengths, read_pixels
from tessera.settings.language import Captions, ItemPrompt

CAPTIONED, NO_PICTURE, BROKEN_PICTURE, NO_TEXT = "captioned", "no picture", "broken picture", "no text"
"""What became of an item: it has a caption, or lacks what the model is to be shown."""
NAMED = 5
"""So many broken pictures are named in the log; the others are counted."""


def write_captions(
    settings: Captions, prompt: ItemPrompt, model: LanguageModel, catalogue: Path, output: Path, state: Path
) -> None:
    """Ask the model of every item and write the captions, a row an item, ascending.

    An item that lacks what the model is to be shown has no caption and a status that says so: with `both`, an item
    without a picture is not described from its text alone. A run that was killed goes on after the last complete shard
    and writes the same file.

    Args:
        settings: what is shown and asked.
        prompt: how the text is told.
        model: a vision-language model where a picture is shown.
        catalogue: items.parquet of the dataset; `image_root` in its metadata is the folder of pictures.
        output: Parquet of the kind `captions`.
        state: folder of the shards, named by everything that captions depend on.
    Raises:
        LanguageModelError: the model cannot be asked so, no item has what it is to be shown, or the folder of pictures
            is not there.
    """
    question = Question(model, settings.source, prompt.domain, settings.instruction)
    table = read_table(catalogue, "items", ["item", "image"]).sort_by("item")
    items = table.column("item").to_pylist()
    attributes = item_attributes(catalogue, prompt) if question.told else {}
    root = describe(catalogue).get("image_root")
    pictures = dict(zip(items, table.column("image").to_pylist(), strict=True)) if root is not None else {}
    if question.pictured and not any(pictures.values()):
        raise LanguageModelError(
            f"{catalogue}: no item has a picture (image_root is {root!r}), but the captions are of source "
            f"{settings.source!r}; use text"
        )
    if question.pictured and not Path(str(root)).is_dir():
        raise LanguageModelError(f"{root}: no such folder; {catalogue} expects its pictures there (image_root)")
    if question.told and not attributes:
        raise LanguageModelError(f"{catalogue}: no item has a text, but the captions are of source {settings.source!r}")
    rows: list[list[Any]] = []
    cut, named = 0, 0
    starts = range(0, len(items), settings.shard)
    with Progress("captions", len(items), "items") as progress:
        for number, start in enumerate(starts):
            chosen = items[start : start + settings.shard]
            shard = state / f"captions-{number:05d}.json"
            if not shard.is_file():
                write_json(shard, _caption(settings, question, chosen, attributes, pictures, root))
            said = read_json(shard)
            rows += said["rows"]
            for reason in said["broken"][: NAMED - named]:
                log.info("%s", reason)
                named += 1
            cut += said["cut"]
            progress.update(len(chosen), note=_example(said["rows"]))
    if cut:
        log.info("%s of %s texts were longer than the model reads and lost their end", f"{cut:,}", f"{len(items):,}")
    counts = Counter(status for _, _, status in rows)
    if counts[BROKEN_PICTURE] > named:
        log.info("and %s more pictures that cannot be read", f"{counts[BROKEN_PICTURE] - named:,}")
    log.info("captions: %s", ", ".join(f"{count:,} {status}" for status, count in counts.most_common()))
    columns = [list(column) for column in zip(*rows, strict=True)]
    made = pa.table({"item": pa.array(columns[0], pa.int32()), "text": pa.array(columns[1], pa.string()),
                     "status": pa.array(columns[2], pa.string())})  # fmt: skip
    write_table(
        output, made, "captions", settings.model_dump(mode="json"), counts=dict(counts), cut=cut, domain=prompt.domain
    )
    for number in range(len(starts)):
        (state / f"captions-{number:05d}.json").unlink(missing_ok=True)


def _example(rows: Sequence[Sequence[Any]]) -> str:
    text = next((text for _, text, _ in rows if text), "")
    return f'"{text[:60]}"' if text else ""


def _caption(
    settings: Captions,
    question: Question,
    items: Sequence[int],
    attributes: dict[int, list[tuple[str, str]]],
    pictures: dict[int, str | None],
    root: str | None,
) -> dict[str, Any]:
    """One shard: its rows (item, caption or None, status), how many texts were cut, and why pictures are broken."""
    status: dict[int, str] = {}
    broken: list[str] = []
    shown: dict[int, Any] = {}
    for item in items:
        status[item] = CAPTIONED
        if question.pictured:
            name = pictures.get(item)
            if not name:
                status[item] = NO_PICTURE
                continue
            try:
                shown[item] = open_picture(Path(str(root)) / name)
            except PictureError as error:
                broken.append(f"item {item}: {error}")
                status[item] = BROKEN_PICTURE
                continue
        if question.told and item not in attributes:
            status[item] = NO_TEXT
    asked = [item for item in items if status[item] == CAPTIONED]
    pixels: list[Pixels | None] = [None] * len(asked)
    if question.pictured:
        pixels[:] = read_pixels(question.model, [shown[item] for item in asked])
    rows, cut = question.rows([attributes.get(item, []) for item in asked], pixels, settings.max_new_tokens)
    said: dict[int, str] = {}
    order = np.argsort(-lengths(rows), kind="stable")
    for start in range(0, len(order), settings.batch):
        batch = order[start : start + settings.batch].tolist()
        texts = answer(
            question, [rows[i] for i in batch], [p for i in batch if (p := pixels[i]) is not None],
            settings.max_new_tokens,
        )  # fmt: skip
        said.update(zip((asked[i] for i in batch), texts, strict=True))
    return {"rows": [[item, said.get(item), status[item]] for item in items], "cut": cut, "broken": broken[:NAMED]}
