"""Names that point to other parts of a config, as types: where a name leads, and what is asked of what stands there.

A field whose type is one of these is checked, read and drawn without anything else knowing of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, get_args

from pydantic import BaseModel, Field

from tessera.settings.base import Settings, did_you_mean


@dataclass(frozen=True)
class Need:
    """What may be asked of what a name leads to; settings say with `offers` what they have."""

    what: str
    refusal: str
    """What is told of a name that leads to something without it."""


ONE_ROW = Need("one row an item", "has several rows an item; only one is read here")
SEVERAL_ROWS = Need("several rows an item", "is no table of recipe attributes")
INTERESTS = Need("interests of users", "is no table of recipe interests")
REASONING = Need("a stage I to go on from", "is no lrcl table")
DECODER = Need("a decoder", "is an encoder; a decoder is needed")
VISION = Need("sight", "is a sentence encoder, which sees no pictures")
PICTURES = Need("vectors of pictures", "is no picture encoder, as folders of CLIP, SigLIP and DINOv2 are")
ITEM_VECTORS = Need("trained item vectors", "is no system of IDs")
ONE_SEQUENCE = Need("one sequence of codes", "has codes a table; one sequence of codes is read here")
CODES_A_TABLE = Need("codes a table", "is not made by mm_rq_vae")
TRUTH = Need("a known truth", "is no generated world, whose truth is known")


@dataclass(frozen=True)
class Ref:
    """The section of the config that a name stands in, and what is asked of what it names."""

    section: str
    needs: Need | None = None


TableName = Annotated[str, Ref("tables", ONE_ROW)]
SeveralRowsTableName = Annotated[str, Ref("tables", SEVERAL_ROWS)]
InterestsTableName = Annotated[str, Ref("tables", INTERESTS)]
ReasoningTableName = Annotated[str, Ref("tables", REASONING)]
CodesName = Annotated[str, Ref("semantic_ids")]
SequenceCodesName = Annotated[str, Ref("semantic_ids", ONE_SEQUENCE)]
CodesATableName = Annotated[str, Ref("semantic_ids", CODES_A_TABLE)]
ModelName = Annotated[str, Ref("models")]
DecoderName = Annotated[str, Ref("models", DECODER)]
PictureEncoderName = Annotated[str, Ref("models", PICTURES)]
CaptionsName = Annotated[str, Ref("captions")]
DatasetName = Annotated[str, Ref("datasets")]
SystemName = Annotated[str, Ref("systems")]
BackboneName = Annotated[str, Ref("backbones")]


class ReadRun(Settings):
    """A trained run that something else reads; it is trained first."""

    def names(self, config: Any) -> tuple[str, str | None, int | None]:
        """Its system; its backbone, None of a system that brings its own network; its seed, None for the reader's."""
        raise NotImplementedError


class RunReference(ReadRun):
    """A trained run whose item vectors are read."""

    system: Annotated[str, Ref("systems", ITEM_VECTORS)] = "id"
    """A system with `items: ids`; it is trained first."""
    backbone: BackboneName = "sasrec"
    """The backbone under which it is trained."""
    seed: int | None = Field(None, ge=0)
    """The seed under which it is trained; null takes that of the run that reads it."""

    def names(self, config: Any) -> tuple[str, str | None, int | None]:
        """See `ReadRun.names`."""
        return self.system, self.backbone, self.seed


@dataclass(frozen=True)
class Reference:
    """A name in a config."""

    path: str
    """Where it stands."""
    ref: Ref
    name: str


def walk(value: Any, path: str = "") -> Iterator[tuple[str, Settings]]:
    """All settings at and below a value, each with its path."""
    if isinstance(value, Settings):
        yield path, value
        for name in type(value).model_fields:
            yield from walk(getattr(value, name), f"{path}.{name}" if path else name)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from walk(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield from walk(inner, f"{path}.{index}" if path else str(index))


def _ref_in(annotation: Any) -> Ref | None:
    for part in get_args(annotation):
        if isinstance(part, Ref):
            return part
        inner = None if isinstance(part, type) and issubclass(part, BaseModel) else _ref_in(part)
        if inner is not None:
            return inner
    return None


@cache
def _fields(model: type[Settings]) -> tuple[tuple[str, Ref], ...]:
    """The fields of a model that hold names."""
    fields = []
    for name, field in model.model_fields.items():
        ref = next((part for part in field.metadata if isinstance(part, Ref)), None) or _ref_in(field.annotation)
        if ref is not None:
            fields.append((name, ref))
    return tuple(fields)


def references(value: Any, path: str = "") -> Iterator[Reference]:
    """All names that stand in settings, in the order of their fields."""
    for place, settings in walk(value, path):
        for field, ref in _fields(type(settings)):
            named = getattr(settings, field)
            where = f"{place}.{field}" if place else field
            if isinstance(named, str):
                yield Reference(where, ref, named)
            elif isinstance(named, list):
                for index, name in enumerate(named):
                    yield Reference(f"{where}.{index}", ref, name)


def named(value: Any, section: str) -> list[str]:
    """The names of a section that settings hold, each once."""
    return list(dict.fromkeys(reference.name for reference in references(value) if reference.ref.section == section))


def unread_of_vectors(codes: Any, as_codebooks: bool, reader: Settings) -> Iterator[tuple[str, str]]:
    """Keys of a reader of code vectors that these codes leave without a say, as (key, what is wrong).

    Args:
        codes: settings of a quantiser, what is read.
        as_codebooks: whether its vectors have the width of the codebooks, where there are any.
        reader: with `start` and `code_dim`.
    """
    if codes.CODEBOOKS is False and reader.says("start"):
        yield "start", f"{codes.quantizer} codes have no codebooks: their vectors start at random; leave it out"
    if codes.CODEBOOKS and as_codebooks and reader.says("code_dim"):
        yield "code_dim", "the codebooks of these codes say how wide their vectors are; leave it out"


def no_attribute(config: Any, name: str, beside: Sequence[str] = ()) -> Iterator[str]:
    """What is wrong with a name that is known to be no attribute of the items of a dataset of the experiment.

    Args:
        config: all of it.
        name: of an attribute.
        beside: what it may name besides.
    """
    for dataset in config.experiment.datasets:
        texts = config.datasets[dataset].attributes
        if texts is not None and name not in [*texts, *beside]:
            hint = did_you_mean(name, [*texts, *beside])
            yield f"is no attribute of the items of datasets.{dataset} (`items.text`){hint}"
