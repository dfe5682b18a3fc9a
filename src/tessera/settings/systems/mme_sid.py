"""Settings of MME-SID."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from tessera.settings.base import PresetSettings, Width, did_you_mean
from tessera.settings.lora import LoRA
from tessera.settings.references import CODES_A_TABLE, CodesATableName, DecoderName, named
from tessera.settings.systems.base import TrainedSystem

if TYPE_CHECKING:
    from tessera.settings.config import Config


class MMESIDSystem(PresetSettings, TrainedSystem):
    """Items as raw tables and code sums in front of a language model that encodes the history (MME-SID, CIKM 2025)."""

    IMPLEMENTATION: ClassVar[str] = "tessera.recommenders.systems.mme_sid:MMESID"
    HISTORY_LOSSES: ClassVar[bool] = True
    FREE: ClassVar[frozenset[str]] = TrainedSystem.FREE | {"start", "packed", "empty_history", "padding_class"}
    OFFICIAL: ClassVar[dict[str, Any]] = {
        "prompt": "short", "readout": "response", "adapt": "feed_forward", "standardize": False,
        "gate_temperature": 1.0e-3, "scale_scores": False,
        "empty_history": True, "padding_class": True,
    }  # fmt: skip
    recommender: Literal["mme_sid"] = "mme_sid"
    semantic_ids: CodesATableName
    """Name under `semantic_ids`, made by `mm_rq_vae`."""
    model: DecoderName
    """Name under `models`: a decoder, or a vision-language model, of which the text part is used."""
    tables: list[str] | None = None
    """Of the tables that the codes were made from, only these, raw and as codes; null takes all."""
    raw: bool = True
    """Read the tables that the codes were made from, projected to the model's width."""
    codes: bool = True
    """Read the sums of the codes' vectors."""
    start: Literal["codebooks", "random"] = "codebooks"
    """Code vectors start as the quantiser's codebooks, or at random: the difference is the forgetting of the paper."""
    standardize: bool = True
    """Centre each raw table and scale it, and the codebooks of each table, to unit mean square; false leaves them as
    they are, as published."""
    fusion: list[Width] | None = None
    """Hidden widths between the branches of an item and its token; null is half of all branches, as published."""
    scoring: Literal["fused", "id"] = "fused"
    """Score by an ID head and one head a raw table, tied to its projection, or by the ID head alone."""
    gate: bool = True
    """Mix the scores by the item's popularity; otherwise they are added."""
    gate_temperature: float = Field(1.0, gt=0)
    """Temperature of that mixture; 1.0e-3 is almost one score alone, as published."""
    scale_scores: bool = True
    """Divide the scores of the tables by the root of the model's width, so that training starts from small ones; false
    does not, as published."""
    instruction: str = Field("Items of a customer, oldest first. Predict the next one:", min_length=1)
    """What the model is told before the items."""
    system_message: str = ""
    """System message of the chat; none where it is empty."""
    prompt: Literal["chat", "short"] = "chat"
    """The instruction in the model's chat template, or after an opening brace without one, as published."""
    readout: Literal["response", "item"] = "item"
    """Where a history's state is read: at the last token of the response's beginning (the paper), or at its last item,
    which costs no further tokens and asks less of a small model's attention."""
    packed: bool = True
    """Train all targets of a history in one pass, exactly; false reads every prefix of a history as a row of its own,
    for models whose attention takes no mask of ours (flash_attention_2)."""
    empty_history: bool = False
    """Also predict a history's first item, from the instruction alone, as published."""
    padding_class: bool = False
    """Count the padding item as a class that is never true, as published."""
    lora: LoRA | None = Field(default_factory=lambda: LoRA(rank=8, alpha=16, dropout=0.05))
    """What is trained in the language model; null keeps it frozen."""
    adapt: Literal["feed_forward", "all"] = "all"
    """Adapters on the layers of attention too, or on feed-forward layers alone (the paper)."""
    max_length: int = Field(50, ge=1)
    """Items of a history that are read."""

    @model_validator(mode="after")
    def _something_to_read(self) -> MMESIDSystem:
        if not self.raw and not self.codes:
            raise ValueError("raw and codes are both false: an item would have nothing to tell")
        if self.tables is not None and not self.tables:
            raise ValueError("tables is empty: an item would have nothing to tell; null takes all")
        return self

    def item_tables(self, config: Config) -> list[str]:
        """The language model reads the tables that its codes were made of."""
        return named(config.semantic_ids[self.semantic_ids], "tables")

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also of codes, heads, adapters and a chat that there are none of."""
        yield from super().unread()
        if not self.codes:
            yield "is of vectors of codes, and codes: false reads none", ("start",)
        of_heads = ("gate", "gate_temperature", "scale_scores")
        if not self.raw:
            yield "is of heads of raw tables, and raw: false reads none", ("scoring", *of_heads)
        elif self.scoring == "id":
            yield "is of heads of raw tables, and scoring: id has none", of_heads
        elif not self.gate:
            yield "is of a mixture, and gate: false adds the scores", ("gate_temperature",)
        if self.lora is None:
            yield "is of adapters, and lora: null has none", ("adapt",)
        if self.prompt == "short":
            yield "is of a chat, and prompt: short is none", ("system_message",)

    def problems(self, config: Config) -> Iterator[tuple[str, str]]:
        """Also tables that its codes were not made of."""
        yield from super().problems(config)
        codes = config.semantic_ids.get(self.semantic_ids)
        parts = named(codes, "tables")
        if codes is None or CODES_A_TABLE not in codes.offers():
            return
        for index, table in enumerate(self.tables or []):
            if table not in parts:
                hint = did_you_mean(table, parts)
                yield f"tables.{index}", f"{table!r} is none of the tables of {self.semantic_ids!r}{hint}"
