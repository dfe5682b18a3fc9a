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
from tessera.artifacts.tables import write_table
from tessera.language.answers import answer
from tessera.language.models import LanguageModel
from tessera.language.questions import Pixels, Question, lengths, read_pixels
from tessera.language.shown import BROKEN_PICTURE, ShownCatalogue
from tessera.settings.language import Captions, ItemPrompt
from tessera.training.checkpoint import clear, tidy

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
    shown = ShownCatalogue(question, prompt, catalogue, settings.max_pixels)
    items = shown.items
    rows: list[list[Any]] = []
    cut, named = 0, 0
    starts = range(0, len(items), settings.shard)
    tidy(state)
    with Progress("captions", len(items), "items") as progress:
        for number, start in enumerate(starts):
            chosen = items[start : start + settings.shard]
            shard = state / f"captions-{number:05d}.json"
            if not shard.is_file():
                write_json(shard, _caption(settings, shown, chosen))
            said = _read_shard(shard, chosen)
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
    clear(state / "captions-00000.json")


def _read_shard(path: Path, items: Sequence[int]) -> dict[str, Any]:
    """What was said of these items.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        said = read_json(path)
        whole = [item for item, _, _ in said["rows"]] == list(items) and {"cut", "broken"} <= set(said)
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        raise ValueError(f"{path}: is no shard of these captions; remove it, and its items are asked about again")
    return dict(said)


def _example(rows: Sequence[Sequence[Any]]) -> str:
    text = next((text for _, text, _ in rows if text), "")
    return f'"{text[:60]}"' if text else ""


def _caption(settings: Captions, shown: ShownCatalogue, items: Sequence[int]) -> dict[str, Any]:
    """One shard: its rows (item, caption or None, status), how many texts were cut, and why pictures are broken."""
    question, seen = shown.question, shown.see(items)
    asked = seen.asked
    pixels: list[Pixels | None] = [None] * len(asked)
    if question.pictured:
        pixels[:] = read_pixels(question.model, [seen.pictures[item] for item in asked])
    rows, cut = question.rows([shown.attributes.get(item, []) for item in asked], pixels, settings.max_new_tokens)
    said: dict[int, str] = {}
    order = np.argsort(-lengths(rows), kind="stable")
    for start in range(0, len(order), settings.batch):
        batch = order[start : start + settings.batch].tolist()
        texts = answer(
            question, [rows[i] for i in batch], [p for i in batch if (p := pixels[i]) is not None],
            settings.max_new_tokens,
        )  # fmt: skip
        said.update(zip((asked[i] for i in batch), texts, strict=True))
    made = [[item, said.get(item), seen.status[item]] for item in items]
    return {"rows": made, "cut": cut, "broken": seen.broken[:NAMED]}
