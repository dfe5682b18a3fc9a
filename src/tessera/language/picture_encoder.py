"""Picture encoders of transformers: CLIP, SigLIP, SigLIP 2, DINOv2. A picture becomes one vector.

Weights are read from safetensors alone, and no code that comes with a model is run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from tessera.artifacts.language_folder import PICTURE_ENCODERS, FolderError, check_picture_folder
from tessera.language.models import LanguageModelError, locate, quiet, read_image_processor, read_weights
from tessera.settings.language import FolderModel, HubModel
from tessera.training.machine import pick_device

Pixels = dict[str, Tensor]
"""What an image processor makes of one picture, as a batch of one."""


@dataclass
class PictureEncoder:
    """A frozen picture encoder in evaluation mode, with its image processor."""

    tower: Any
    """Pixels to states; of CLIP and SigLIP without the part that reads texts."""
    projection: nn.Module | None
    """CLIP's last step, from the pooler's vector to one that is compared with texts."""
    processor: Any
    """Pictures to pixels, by Pillow."""
    first: int
    """Tokens before those of patches: the first token and registers."""
    way: str
    """How a picture is summed up."""
    width: int
    """Of its vectors."""
    device: torch.device
    """Where the weights are."""

    def pixels(self, picture: Image.Image) -> Pixels:
        """What the model is shown of a picture in RGB."""
        return dict(self.processor(images=picture, return_tensors="pt"))

    @torch.no_grad()
    def encode(self, shown: Sequence[Pixels]) -> Tensor:
        """(pictures, width) float32 vectors, on the CPU.

        Args:
            shown: what `pixels` made of each.
        """
        inputs = {key: torch.cat([one[key] for one in shown]).to(self.device) for key in shown[0]}
        inputs["pixel_values"] = inputs["pixel_values"].to(self.tower.dtype)
        made = self.tower(**inputs)
        return self._pooled(made, inputs.get("pixel_attention_mask")).float().cpu()

    def _pooled(self, made: Any, mask: Tensor | None) -> Tensor:
        states: Tensor = made.last_hidden_state
        if self.way == "first":
            return states[:, 0]
        if self.way == "mean":
            patches = states[:, self.first :]
            weights = torch.ones_like(patches[..., :1]) if mask is None else mask[..., None].to(patches.dtype)
            return (patches * weights).sum(1) / weights.sum(1)
        pooled: Tensor = made.pooler_output
        if self.projection is not None:
            pooled = self.projection(pooled)
        return pooled


def load_picture_encoder(settings: HubModel | FolderModel, pooling: str = "auto") -> PictureEncoder:
    """Load an encoder on its device, without gradients, in evaluation mode.

    Args:
        settings: which one, and how its weights are held.
        pooling: how a picture is summed up.
    Raises:
        LanguageModelError: the model is not there, is no picture encoder, does not sum pictures up so, holds pickles or
            code instead of safetensors, lacks weights, or asks for what this machine has not.
        FileNotFoundError: the folder of the config is not there; the message names the nearest.
    """
    quiet()
    folder = locate(settings)
    try:
        config = check_picture_folder(folder, pooling)
    except FolderError as error:
        raise LanguageModelError(str(error)) from None
    way = PICTURE_ENCODERS[config["model_type"]][0] if pooling == "auto" else pooling
    device = pick_device(settings.device)
    full = read_weights(folder, settings, "AutoModel", "a picture encoder", device)
    full.requires_grad_(False)
    full.eval()
    tower = getattr(full, "vision_model", full)
    described = tower.config
    if way == "pooler" and not getattr(described, "vision_use_head", True):
        raise LanguageModelError(
            f"{folder}: was trained without a head (vision_use_head), so it has no pooler: use mean"
        )
    projection = full.visual_projection if way == "projection" else None
    return PictureEncoder(
        tower=tower,
        projection=projection,
        processor=read_image_processor(folder),
        first=_first(config["model_type"], described),
        way=way,
        width=int(described.hidden_size if projection is None else projection.out_features),
        device=device,
    )


def _first(model_type: str, config: Any) -> int:
    """Tokens that stand before those of patches."""
    if "first" not in PICTURE_ENCODERS[model_type]:
        return 0
    return 1 + int(getattr(config, "num_register_tokens", 0))
