"""Stage II goes on from an embedder of somebody else's recipe: its words, its attention, its fingerprint."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_train_crrl import ITEMS, write_pairs
from tiny_language import tiny_model

from tessera.artifacts.models import read_tensors
from tessera.artifacts.tables import read_item_table
from tessera.embedding.embed import embed
from tessera.embedding.lrcl import LRCLRecipe
from tessera.embedding.task import Places, Task
from tessera.embedding.tune import tune
from tessera.plan.graph import Noun, Plan
from tessera.plan.jobs import Jobs
from tessera.settings.base import ConfigError
from tessera.settings.config import Config, load
from tessera.settings.kinds import settings_class

FOLDER = "recipes_of_a_test"
SETTINGS = """
from typing import ClassVar
from tessera.settings.recipes.lrcl import LRCLTable
from tessera.settings.references import ReasoningTableName
class Noted(LRCLTable):
    IMPLEMENTATION: ClassVar[str] = "recipes_of_a_test.noted:NotedRecipe"
    recipe: str
    note: str = "Mark this."
class Further(Noted):
    IMPLEMENTATION: ClassVar[str] = "recipes_of_a_test.further:FurtherRecipe"
    start: ReasoningTableName
class Stranger(LRCLTable):
    IMPLEMENTATION: ClassVar[str] = "recipes_of_a_test.noted:Stranger"
    recipe: str
"""
CODE = """
import torch
from tessera.embedding.lrcl import LRCLRecipe
from tessera.embedding.scft import SCFTRecipe
from tessera.language.reasoning import ReasoningAttention
from tessera.language.tokens import plain_frame

class Gated(ReasoningAttention):
    def __init__(self, width, last_tokens):
        super().__init__(width, last_tokens)
        self.gate = torch.nn.Parameter(torch.ones(width))

    def forward(self, *given):
        return self.gate * super().forward(*given)

class NotedRecipe(LRCLRecipe):
    def frame(self, training=False):
        return plain_frame(self.given.model, self.settings.note, end=False)

    def attention(self):
        return Gated(self.given.model.width, self.settings.last_tokens).to(self.given.model.device)

class Stranger(SCFTRecipe):
    pass
"""
FURTHER = """
import torch
from recipes_of_a_test.noted import NotedRecipe
from tessera.artifacts.models import read_tensors

class FurtherRecipe(NotedRecipe):
    def begin(self, machine):
        found = super().begin(machine)
        assert type(self.start) is NotedRecipe and self.start.settings.note == "Mark this."
        weights = read_tensors(self.given.embedder)
        with torch.no_grad():
            for name, weight in self.thinking.named_parameters():
                weight.copy_(weights[f"attention/{name}"])
        return found
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with two recipes and a language model; nothing of it is left behind."""
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = tmp_path / FOLDER
    folder.mkdir()
    (folder / "settings.py").write_text(SETTINGS)
    (folder / "noted.py").write_text(CODE)
    (folder / "further.py").write_text(FURTHER)
    settings_class.cache_clear()
    yield tmp_path
    settings_class.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == FOLDER]:
        del sys.modules[name]


LORA = "lora/layers.0.mlp.down_proj.lora_A.weight"
STEPS = {"steps": 2, "batch": 8, "device": "cpu", "learning_rate": 1e-2, "warmup_steps": 0}


def config(place: Path, steps: int = 2, table: str = "second", **first: Any) -> Config:
    model = tiny_model()
    model.full.save_pretrained(place / "words")
    model.tokenizer.save_pretrained(place / "words")
    stage_one = {"recipe": f"{FOLDER}.settings:Noted", "model": "tiny", "pca": None, "whiten": 0.0, "training": STEPS}
    stage_two = {"recipe": "crrl", "start": "first", "candidates": 6, "reward": "softmax", "pca": None, "whiten": 0.0}
    return load(
        {
            "datasets": {"shop": {"source": "bazaar"}},
            "models": {"tiny": {"folder": str(place / "words")}},
            "tables": {
                "first": {**stage_one, **first},
                "second": {**stage_two, "training": {**STEPS, "steps": steps}},
                "third": {**stage_one, "recipe": f"{FOLDER}.settings:Further", "start": "first", "note": "Once more."},
            },
            "systems": {"items": {"items": {"table": table}}},
            "experiment": {"datasets": ["shop"], "systems": ["items"], "backbones": ["sasrec"], "seeds": [1]},
        }
    )


def make(place: Path, config: Config, table: str, start: Path | None = None) -> Path:
    """Tune and embed, as the jobs of a table do."""
    data, jobs = place / "data", Jobs(Plan(config))
    if not data.exists():
        data.mkdir()
        write_pairs(data)
    common: dict[str, Any] = {"catalogue": str(data / "items.parquet"), "captions": {}, "model": None}
    output = place / table / "model.safetensors"
    begun = Places(**common, data=str(data), embedder=str(start) if start else None)
    task = Task.model_validate_json(jobs.settings(Noun("embedder", table), "shop"))
    tune(task, begun, output, place / "state", "")
    task = Task.model_validate_json(jobs.settings(Noun("table", table), "shop"))
    embed(task, Places(**common, embedder=str(output)), place / f"{table}.parquet", place / "state", "")
    return output


def vectors(path: Path) -> np.ndarray:
    return read_item_table(path, ITEMS)[0]


def test_it_goes_on_in_the_words_and_with_the_attention_of_its_start(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    untrained = config(place, steps=0)
    first = make(place, untrained, "first")
    assert {"attention/gate", LORA} <= read_tensors(first).keys()
    second = make(place, untrained, "second", first)
    # nothing learned: stage II reads and thinks exactly as stage I did
    begun = vectors(place / "second.parquet")
    np.testing.assert_allclose(begun, vectors(place / "first.parquet"), atol=1e-5)
    trained = config(place)
    second = make(place, trained, "second", first)
    before, after = read_tensors(first), read_tensors(second)
    assert not torch.equal(after["attention/gate"], before["attention/gate"])
    assert torch.equal(after[LORA], before[LORA])
    assert np.abs(vectors(place / "second.parquet") - begun).max() > 0
    # what the start says counts: in other words the same weights give other vectors
    monkeypatch.setattr(sys.modules[f"{FOLDER}.noted"].NotedRecipe, "frame", LRCLRecipe.frame)
    make(place, untrained, "second", first)
    assert np.abs(vectors(place / "second.parquet") - begun).max() > 1e-3


def test_a_recipe_of_somebody_else_goes_on_from_another(place: Path) -> None:
    made = config(place, table="third")
    first = make(place, made, "first")
    third = make(place, made, "third", first)
    before, after = read_tensors(first)["attention/gate"], read_tensors(third)["attention/gate"]
    assert (before - 1).abs().max() > 0.01
    # two steps of 0.01 away from where it started
    assert 0 < (after - before).abs().max() < 0.025
    plan = Plan(made)
    assert Noun("embedder", "first") in plan.reads(Noun("embedder", "third"))
    assert {f"{FOLDER}.{name}" for name in ("settings", "noted", "further")} <= set(
        Jobs(plan).modules(Noun("table", "third"))
    )


def test_its_code_is_in_the_fingerprint_of_both_stages(place: Path) -> None:
    jobs = Jobs(Plan(config(place)))
    for noun in (Noun("embedder", "second"), Noun("table", "second"), Noun("embedder", "first")):
        assert {f"{FOLDER}.settings", f"{FOLDER}.noted"} <= set(jobs.modules(noun))
    assert not any("published" in name for name in jobs.modules(Noun("embedder", "second")))


def test_a_start_that_does_not_reason_is_refused(place: Path) -> None:
    with pytest.raises(ConfigError, match=r"'first' has no thoughts .*: learns: adapters"):
        config(place, thoughts=0)
    odd = config(place, recipe=f"{FOLDER}.settings:Stranger")
    with pytest.raises(ValueError, match=r"crrl: start: Stranger does not reason: .* extends tessera.embedding.lrcl"):
        make(place, odd, "second")


def test_published_habits_of_other_code_are_refused(place: Path) -> None:
    with pytest.raises(ConfigError, match=r"tables\.first: rope: 'mixed' is a published habit that recipes_of_a_test"):
        config(place, rope="mixed")
    with pytest.raises(ConfigError, match="is a published habit"):
        config(place, preset="official")
