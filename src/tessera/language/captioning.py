"""The stage that captions a catalogue."""

from __future__ import annotations

from pathlib import Path

from tessera.artifacts.files import file_digest
from tessera.language.captions import write_captions
from tessera.language.models import fingerprint, load_model
from tessera.settings.base import Settings
from tessera.settings.language import Captions, ItemPrompt, LanguageModel
from tessera.training.machine import state_identity


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
    files = [catalogue, *([model / "model.safetensors"] if model else []), *([pictures] if pictures else [])]
    digests = [file_digest(file) for file in files]
    folder = state / state_identity(task.canonical(), code, *digests, *fingerprint(task.model))
    write_captions(task.captions, task.prompt, load_model(task.model, model), catalogue, output, folder)
