"""What an embedding stage gets: the recipe with every name resolved, so that a module never reads a config."""

from __future__ import annotations

from pathlib import Path

from tessera.artifacts.files import file_digest
from tessera.embedding.recipe import Given, Recipe
from tessera.language.models import fingerprint, load_model
from tessera.settings.base import Settings
from tessera.settings.kinds import implementation
from tessera.settings.language import ItemPrompt, LanguageModel
from tessera.settings.recipes.base import ItemTable
from tessera.training.machine import state_identity


class Places(Settings):
    """The files of a task."""

    catalogue: str
    captions: dict[str, str]
    model: str | None
    """Folder of a model that was built."""
    data: str = ""
    """Folder of the prepared dataset, for training."""
    embedder: str | None = None
    """Weights of a trained recipe: what embeds, or what a table starts from."""
    pictures: str | None = None
    """What is told of the pictures, where they are read."""
    writer: str | None = None
    """Folder of a second model that was built."""

    def digests(self) -> list[str]:
        """Fingerprints of the files that training reads."""
        files = [self.catalogue, *(path for _, path in sorted(self.captions.items()))]
        files += [str(Path(self.data, "interactions.parquet"))] if self.data else []
        files += [str(Path(self.model, "model.safetensors"))] if self.model else []
        files += [self.embedder] if self.embedder else []
        files += [str(Path(self.writer, "model.safetensors"))] if self.writer else []
        return [file_digest(file) for file in files]


class Task(Settings):
    """What makes one table on one dataset, every name resolved."""

    table: ItemTable
    start: ItemTable | None = None
    """The table it goes on from, or the defaults of one; null for a recipe that starts from itself."""
    model: LanguageModel
    writer: LanguageModel | None = None
    """A second model, which writes what the first reads."""
    prompt: ItemPrompt

    def state(self, inputs: Places, state: Path, code: str) -> Path:
        """The folder below `state` of what a killed run goes on from."""
        # times of pictures are in no artifact: what is made of the same pictures is the same
        pictures = [file_digest(inputs.pictures)] if inputs.pictures else []
        models = [*fingerprint(self.model), *fingerprint(self.writer)]
        return state / state_identity(self.canonical(), code, *inputs.digests(), *models, *pictures)

    def _answers(self, inputs: Places, state: Path) -> Path:
        """Where answers of what writes are kept: beside the states, for whatever table asks the same again."""
        model, folder = (self.model, inputs.model) if self.writer is None else (self.writer, inputs.writer)
        built = [file_digest(Path(folder, "model.safetensors"))] if folder else []
        return state.parents[1] / "answers" / state_identity(model.canonical(), *fingerprint(model), *built)

    def recipe(self, inputs: Places, state: Path) -> Recipe:
        """The recipe with its model, its files and the folder of its state, and the one that it goes on from."""
        kind: type[Recipe] = implementation(self.table)
        given = Given(
            prompt=self.prompt,
            model=kind.open_model(self.table, self.model, Path(inputs.model) if inputs.model else None),
            catalogue=Path(inputs.catalogue),
            captions={name: Path(path) for name, path in inputs.captions.items()},
            data=Path(inputs.data),
            embedder=Path(inputs.embedder) if inputs.embedder else None,
            state=state,
            writer=load_model(self.writer, Path(inputs.writer) if inputs.writer else None) if self.writer else None,
            answers=self._answers(inputs, state),
        )
        start = implementation(self.start)(self.start, given) if self.start is not None else None
        recipe = kind(self.table, given, start)
        recipe.check_model()
        return recipe
