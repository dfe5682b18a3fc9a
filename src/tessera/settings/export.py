"""Settings of a folder in which a finished run is handed on."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Literal

from pydantic import field_validator
from pydantic_core import PydanticCustomError

from tessera.settings.base import Settings

ONNX_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
"""What the extra `onnx` brings."""
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}")
_LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,63}")


def onnx_problem() -> str | None:
    """What is in the way of writing ONNX; None where all of it is installed."""
    lacking = [name for name in ONNX_PACKAGES if find_spec(name) is None]
    mend = "pip install -e '.[onnx]' -c constraints.txt, or onnx: false"
    return f"{', '.join(lacking)} cannot be imported; {mend}" if lacking else None


class Export(Settings):
    """A run in a folder to hand on, `export/` of its dataset: weights, ids, item vectors, index, model card."""

    index: Literal["auto", "flat", "hnsw", "ivf_pq"] = "auto"
    """The faiss index of the item vectors: exact, a graph, or compressed lists. `auto` is exact up to 100,000 items, a
    graph up to 1,000,000, lists beyond; the model card tells what share of the exact lists is found."""
    onnx: bool = True
    """Also write what makes a user's vector of item ids as ONNX, where the system has one (the extra `onnx`)."""
    licence: str | None = None
    """Of the weights, as the model card tells it, e.g. apache-2.0. Null: the card says that none was given."""
    push: str | None = None
    """OWNER/NAME of a repository of the Hugging Face Hub that the folder is sent to; it is made private where it is not
    there. It needs a token (`hf auth login` or HF_TOKEN). Null: nothing is sent anywhere."""

    @field_validator("licence")
    @classmethod
    def _known_form(cls, value: str | None) -> str | None:
        if value is not None and not _LICENCE.fullmatch(value):
            raise PydanticCustomError("licence", "expected the name of a licence, e.g. apache-2.0")
        return value

    @field_validator("push")
    @classmethod
    def _repository(cls, value: str | None) -> str | None:
        if value is not None and not _REPOSITORY.fullmatch(value):
            raise PydanticCustomError("repository", "expected OWNER/NAME of a repository")
        return value
