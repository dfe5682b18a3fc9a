"""The stage that captions a catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tessera.artifacts.files import file_digest, read_json, write_json
from tessera.language.captions import ask_of_items, write_captions, write_said
from tessera.language.models import fingerprint, load_model
from tessera.settings.base import Settings
from tessera.settings.language import Captions, ItemPrompt, LanguageModel
from tessera.training.machine import state_identity
from tessera.training.shards import forget_shards


class Captioning(Settings):
    """What makes the captions of one dataset, names resolved."""

    captions: Captions
    model: LanguageModel
    prompt: ItemPrompt


def caption(
    task: Captioning,
    catalogue: Path,
    model: Path | None,
    output: Path,
    state: Path,
    code: str,
    pictures: Path | None = None,
) -> None:
    """Write the captions of a catalogue; `model` is the folder of a model that was built, `pictures` what is told of
    the pictures."""
    folder = _state(task, catalogue, model, state, code, pictures)
    write_captions(task.captions, task.prompt, load_model(task.model, model), catalogue, output, folder)


def caption_part(
    task: Captioning,
    part: int,
    catalogue: Path,
    model: Path | None,
    output: Path,
    state: Path,
    code: str,
    pictures: Path | None = None,
) -> None:
    """Write, as JSON, what is said of one of `jobs` parts of a catalogue, from 0; see `caption`."""
    which = part, task.captions.jobs
    folder = _state(task, catalogue, model, state, code, pictures, f"part {part} of {task.captions.jobs}")
    said = ask_of_items(task.captions, task.prompt, load_model(task.model, model), catalogue, folder, which)
    write_json(output, said)
    forget_shards(folder)


def join_parts(task: Captioning, parts: Sequence[Path], output: Path) -> None:
    """Write the captions of a catalogue from those of its parts."""
    write_said(task.captions, task.prompt, [read_json(path) for path in parts], output)


def _state(
    task: Captioning, catalogue: Path, model: Path | None, state: Path, code: str, pictures: Path | None, *part: str
) -> Path:
    """The folder of the shards; every part has its own."""
    files = [catalogue, *([model / "model.safetensors"] if model else []), *([pictures] if pictures else [])]
    digests = [file_digest(file) for file in files]
    return state / state_identity(task.canonical(), code, *digests, *fingerprint(task.model), *part)
