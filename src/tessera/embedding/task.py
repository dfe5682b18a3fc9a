"""What an embedding stage gets: the recipe with every name resolved, so that a module never reads a config."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from tessera.artifacts.files import file_digest
from tessera.settings.base import Settings
from tessera.settings.language import ItemPrompt, LanguageModel
from tessera.settings.recipes.attributes import AttributesTable
from tessera.settings.recipes.crrl import CRRLTable
from tessera.settings.recipes.hidden import HiddenTable
from tessera.settings.recipes.lrcl import LRCLTable
from tessera.settings.recipes.scft import SCFTTable
from tessera.settings.recipes.text import TextTable

# recipe -> module, loaded when used: the workflow names it, so that an edit to one re-runs only its own tables
RECIPES = {
    "text": "tessera.embedding.text",
    "attributes": "tessera.embedding.attributes",
    "hidden": "tessera.embedding.hidden",
    "scft": "tessera.embedding.contrastive",
    "lrcl": "tessera.embedding.contrastive",
    "crrl": "tessera.embedding.crrl",
}


class Task(Settings):
    """What makes one table on one dataset, every name resolved."""

    table: TextTable | AttributesTable | HiddenTable | SCFTTable | LRCLTable | CRRLTable = Field(discriminator="recipe")
    start: LRCLTable | None = None
    """Of a crrl table: the lrcl table it goes on from, or the defaults of one."""
    model: LanguageModel
    prompt: ItemPrompt


class Places(Settings):
    """The files of a task."""

    catalogue: str
    captions: dict[str, str]
    model: str | None
    """Folder of a model that was built."""
    data: str = ""
    """Folder of the prepared dataset, for training."""
    embedder: str | None = None
    """Weights of a trained recipe: what embeds, or what a crrl table starts from."""

    def digests(self) -> list[str]:
        """Fingerprints of the files that training reads."""
        files = [self.catalogue, *(path for _, path in sorted(self.captions.items()))]
        files += [str(Path(self.data, "interactions.parquet"))] if self.data else []
        files += [str(Path(self.model, "model.safetensors"))] if self.model else []
        files += [self.embedder] if self.embedder else []
        return [file_digest(file) for file in files]

    @property
    def model_folder(self) -> Path | None:
        """The folder of a model that was built."""
        return Path(self.model) if self.model else None

    @property
    def caption_files(self) -> dict[str, Path]:
        """Captions by name."""
        return {name: Path(path) for name, path in self.captions.items()}
