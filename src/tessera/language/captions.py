"""What a model says of every item: greedy, in shards that survive a kill."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import pyarrow as pa

from tessera.artifacts.files import read_json, write_json
from tessera.artifacts.logs import Progress, log
from tessera.artifacts.tables import write_table
from tessera.language.answers import answer
from tessera.language.models import LanguageModel
from tessera.language.questions import Question
from tessera.language.shown import BROKEN_PICTURE, NO_ANSWER, ShownCatalogue
from tessera.settings.language import Captions, ItemPrompt
from tessera.training.shards import Shards, forget_shards, groups, share_of_groups

NAMED = 5
"""So many broken pictures are named in the log; the others are counted."""


class Said(TypedDict):
    """What was said of some items."""

    rows: list[list[Any]]
    """(item, caption or null, status) of each, ascending."""
    cut: int
    """How many texts lost their end."""
    broken: list[str]
    """Why pictures cannot be read, at most `NAMED` of them."""


def ask_of_items(
    settings: Captions, prompt: ItemPrompt, model: LanguageModel, catalogue: Path, state: Path,
    part: tuple[int, int] = (0, 1),
) -> Said:  # fmt: skip
    """Ask the model of every item, or of one of several equal parts of them.

    An item that lacks what the model is to be shown has no caption and a status that says so: with `both`, an item
    without a picture is not described from its text alone. A run that was killed goes on after the last complete shard
    and gives the same. So do parts together: they are whole groups, inside of which batches are made.

    Args:
        settings: what is shown and asked.
        prompt: how the text is told.
        model: a vision-language model where a picture is shown.
        catalogue: items.parquet of the dataset; `image_root` in its metadata is the folder of pictures.
        state: folder of the shards, named by everything that captions depend on.
        part: which, from 0, and of how many.
    Raises:
        LanguageModelError: the model cannot be asked so, no item has what it is to be shown, or the folder of pictures
            is not there.
    """
    question = Question(model, settings.source, prompt.domain, settings.instruction)
    shown = ShownCatalogue(question, prompt, catalogue, settings.max_pixels)
    items = share_of_groups(shown.items, settings.batch, *part)
    said: Said = {"rows": [], "cut": 0, "broken": []}
    shards = Shards(state, write_json, _read_shard, ".json", "these captions")
    with Progress("captions", len(items), "items") as progress:
        for chosen, shard in shards.work(
            items, settings.shard, settings.batch, lambda some: _caption(settings, shown, some)
        ):
            said["rows"] += shard["rows"]
            for reason in shard["broken"][: NAMED - len(said["broken"])]:
                log.info("%s", reason)
                said["broken"].append(reason)
            said["cut"] += shard["cut"]
            progress.update(len(chosen), note=_example(shard["rows"]))
    return said


def write_captions(
    settings: Captions, prompt: ItemPrompt, model: LanguageModel, catalogue: Path, output: Path, state: Path
) -> None:
    """Ask the model of every item and write the captions; see `ask_of_items` and `write_said`."""
    write_said(settings, prompt, [ask_of_items(settings, prompt, model, catalogue, state)], output)
    forget_shards(state)


def write_said(settings: Captions, prompt: ItemPrompt, parts: Sequence[Said], output: Path) -> None:
    """Write captions, a row an item, ascending, from what was said of all parts.

    Args:
        settings: what was shown and asked.
        prompt: how the text was told.
        parts: in their order.
        output: Parquet of the kind `captions`.
    Raises:
        ValueError: the parts are not those of one catalogue, in their order.
    """
    rows = [row for part in parts for row in part["rows"]]
    items = [item for item, _, _ in rows]
    if items != sorted(set(items)):
        raise ValueError(f"{output}: its parts are not of one catalogue: make them again")
    cut = sum(part["cut"] for part in parts)
    if cut:
        log.info("%s of %s texts were longer than the model reads and lost their end", f"{cut:,}", f"{len(rows):,}")
    counts = Counter(status for _, _, status in rows)
    if counts[BROKEN_PICTURE] > NAMED:
        log.info("and %s more pictures that cannot be read", f"{counts[BROKEN_PICTURE] - NAMED:,}")
    if counts[NO_ANSWER]:
        log.warning("of %s items the model was shown, it said nothing", f"{counts[NO_ANSWER]:,}")
    log.info("captions: %s", ", ".join(f"{count:,} {status}" for status, count in counts.most_common()))
    columns = [list(column) for column in zip(*rows, strict=True)]
    made = pa.table({"item": pa.array(columns[0], pa.int32()), "text": pa.array(columns[1], pa.string()),
                     "status": pa.array(columns[2], pa.string())})  # fmt: skip
    write_table(output, made, "captions", settings.identity(), counts=dict(counts), cut=cut, domain=prompt.domain)


def _read_shard(path: Path, items: Sequence[int]) -> dict[str, Any]:
    """What was said of these items."""
    said = read_json(path)
    if [item for item, _, _ in said["rows"]] != list(items) or not {"cut", "broken"} <= set(said):
        raise ValueError
    return dict(said)


def _example(rows: Sequence[Sequence[Any]]) -> str:
    text = next((text for _, text, _ in rows if text), "")
    return f'"{text[:60]}"' if text else ""


def _caption(settings: Captions, shown: ShownCatalogue, items: Sequence[int]) -> dict[str, Any]:
    """One shard: its rows (item, caption or None, status), how many texts were cut, and why pictures are broken."""
    made: dict[str, Any] = {"rows": [], "cut": 0, "broken": []}
    for group in groups(items, settings.batch):
        seen, batches, cut = shown.ask(group, settings.batch, settings.max_new_tokens)
        said: dict[int, str] = {}
        for batch in batches:
            pictures = [pixels for pixels in batch.pixels if pixels is not None]
            texts = answer(shown.question, batch.rows, pictures, settings.max_new_tokens)
            said.update(zip(batch.items, texts, strict=True))
        silent = {item for item, text in said.items() if not text.strip()}
        made["rows"] += [
            [item, None, NO_ANSWER] if item in silent else [item, said.get(item), seen.status[item]] for item in group
        ]
        made["cut"] += cut
        made["broken"] = [*made["broken"], *seen.broken][:NAMED]
    return made
