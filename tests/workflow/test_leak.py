"""Nothing that is trained may see a held-out interaction: permute the held-out targets, and every artifact stays."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml
from tiny_project import Project

from tessera.artifacts.models import read_tensors
from tessera.artifacts.tables import describe, read_item_table, read_table, write_table
from tessera.data.collaborative import collaborative_table
from tessera.embedding.embed import embed
from tessera.embedding.task import Places, Task
from tessera.embedding.tune import tune
from tessera.language.captioning import Captioning, caption
from tessera.language.pretraining import Pretraining, run_pretraining
from tessera.plan.graph import Plan
from tessera.quantization.quantize import quantize
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.train import train_run
from tessera.settings.config import Config, load
from tessera.settings.recipes.collaborative import CollaborativeTable
from tessera.settings.recipes.crrl import CRRLTable
from tessera.settings.recipes.lrcl import LRCLTable

pytestmark = pytest.mark.workflow


def permuted(source: Path, target: Path) -> None:
    """The dataset with the items of all held-out rows dealt out anew."""
    shutil.copytree(source, target)
    path = target / "interactions.parquet"
    table = read_table(path, "interactions")
    items = table.column("item").to_numpy().copy()
    held = np.flatnonzero(pc.not_equal(table.column("split"), "train").to_numpy(zero_copy_only=False))
    items[held] = np.random.default_rng(0).permutation(items[held])
    assert (items != table.column("item").to_numpy()).any()
    place = table.column_names.index("item")
    changed = table.set_column(place, "item", pa.array(items, pa.int32())).replace_schema_metadata(None)
    write_table(path, changed, "interactions", describe(path)["settings"])


def task(config: Config, name: str) -> Task:
    table, reader = config.tables[name], Plan(config).reader(name)
    assert reader is not None
    start = reader if isinstance(table, CRRLTable) else None
    assert start is None or isinstance(start, LRCLTable)
    prompt = config.datasets["bazaar"].prompt
    return Task.model_validate({"table": table, "start": start, "model": config.models[reader.model], "prompt": prompt})


@pytest.fixture(scope="module")
def again(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every trained artifact of the tiny config, made from the permuted dataset."""
    config = load(yaml.safe_load((finished.folder / "config/tiny.yaml").read_text()))
    folder = tmp_path_factory.mktemp("leak")
    permuted(finished.folder / "results/tiny/bazaar/data", folder / "data")
    # pictures are named from the dataset's folder
    (folder / "raw").symlink_to(finished.folder / "results/tiny/bazaar/raw")
    catalogue, model, state = folder / "data/items.parquet", folder / "model", folder / "state"
    small, prompt = config.models["small"], config.datasets["bazaar"].prompt
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(finished.folder)  # pictures are named relative to the working directory
        making = Pretraining.model_validate({"model": small, "prompt": prompt, "source": "bazaar"})
        run_pretraining(making, folder / "data", model, state, "")
        said = Captioning.model_validate({"captions": config.captions["looks"], "model": small, "prompt": prompt})
        caption(said, catalogue, model, folder / "looks.parquet", state, "")
        for name in ("text", "said", "pieces", "interests", "llmemb", "lrcl", "reaemb", "moca"):
            reader = Plan(config).reader(name)
            assert reader is not None
            captions = {found: str(folder / f"{found}.parquet") for found in reader.captions}
            own, start = folder / name / "model.safetensors", folder / "lrcl/model.safetensors"
            common = {"catalogue": str(catalogue), "captions": captions, "model": str(model)}
            learned = config.tables[name].recipe in ("scft", "lrcl", "crrl", "moca")
            if learned:
                begins = {"embedder": str(start)} if name == "reaemb" else {}
                tune(task(config, name), Places(**common, data=str(folder / "data"), **begins), own, state, "")
            if name != "lrcl":
                histories = {"data": str(folder / "data")} if name == "interests" else {}
                made = Places(**common, **histories, embedder=str(own) if learned else None)
                embed(task(config, name), made, folder / f"{name}.parquet", state, "")
    return folder


@pytest.mark.parametrize("name", ["llmemb", "lrcl", "reaemb", "moca"])
def test_embedders(name: str, finished: Project, again: Path) -> None:
    before = finished.folder / f"results/tiny/bazaar/embedders/{name}/model.safetensors"
    assert (again / name / "model.safetensors").read_bytes() == before.read_bytes()


def test_the_built_model(finished: Project, again: Path) -> None:
    before = finished.folder / "results/tiny/bazaar/models/small"
    for file in ("model.safetensors", "tokenizer.json"):
        assert (again / "model" / file).read_bytes() == (before / file).read_bytes()


def test_captions(finished: Project, again: Path) -> None:
    before = read_table(finished.folder / "results/tiny/bazaar/captions/looks.parquet", "captions")
    assert read_table(again / "looks.parquet", "captions").equals(before)


@pytest.mark.parametrize("name", ["text", "llmemb", "reaemb", "moca"])
def test_tables(name: str, finished: Project, again: Path) -> None:
    items = read_table(again / "data/items.parquet", "items").num_rows
    before, _ = read_item_table(finished.folder / f"results/tiny/bazaar/tables/{name}.parquet", items)
    after, _ = read_item_table(again / f"{name}.parquet", items)
    np.testing.assert_array_equal(before, after)


def test_interests(finished: Project, again: Path) -> None:
    before = read_table(finished.folder / "results/tiny/bazaar/tables/interests.parquet", "user_interests")
    assert read_table(again / "interests.parquet", "user_interests").equals(before)


TEACHER = "results/tiny/bazaar/runs/id/sasrec/seed-1/model.safetensors"


@pytest.fixture(scope="module")
def codes_again(finished: Project, again: Path) -> Path:
    """The semantic IDs of the tiny config, made from the permuted dataset."""
    config = load(yaml.safe_load((finished.folder / "config/tiny.yaml").read_text()))
    recipe = config.tables["collaborative"]
    assert isinstance(recipe, CollaborativeTable)
    # when the ID run stopped may depend on validation targets, as it may: its vectors are taken as they are
    collaborative_table(recipe, finished.folder / TEACHER, again / "data", again / "collaborative.parquet")
    for name, settings in config.semantic_ids.items():
        tables = {table: again / f"{table}.parquet" for table in Plan(config).quantized(name)}
        output = again / "codes" / name / "codes.parquet"
        quantize(settings, tables, None, again / "data", output, again / "state", "")
    return again / "codes"


@pytest.mark.parametrize("name", ["plain", "learned", "views"])
def test_semantic_ids(name: str, finished: Project, codes_again: Path) -> None:
    before = finished.folder / f"results/tiny/bazaar/semantic_ids/{name}"
    assert (codes_again / name / "model.safetensors").read_bytes() == (before / "model.safetensors").read_bytes()
    found, expected = (read_table(folder / "codes.parquet", "semantic_ids") for folder in (codes_again / name, before))
    assert found.equals(expected)


CHOSEN = {"tau", "tried"}
"""What CIDer chooses on validation besides the epoch, as it may."""


@pytest.mark.parametrize(
    "path",
    [
        "llmemb/sasrec/seed-1",
        "codes/sasrec/seed-1",
        "dmesr/sasrec/seed-1",
        "tiger/tiger/seed-1",
        "pad/sasrec/seed-1",
        "findrec/gru4rec/seed-1",
        "eimf/eimf/seed-1",
        "i3_mrec/sasrec/seed-1",
        "i3_mrec_graph/i3_mrec_graph/seed-1",
        "cider/gru4rec/seed-1",
        "mme_sid/mme_sid/seed-1",
    ],
)
def test_recommenders_but_for_when_they_stop(path: str, finished: Project, again: Path, codes_again: Path) -> None:
    # validation targets choose the epoch, as they may: with one epoch, nothing is chosen
    config = load(yaml.safe_load((finished.folder / "config/tiny.yaml").read_text()))
    run = next(run for run in Plan(config).runs if run.path == path)
    run = run.model_copy(update={"training": run.training.model_copy(update={"epochs": 1})})
    codes = next(iter(Plan(config).codes(run)), None)
    inputs = RunInputs(
        tables={name: str(again / f"{name}.parquet") for name in run.tables},
        teacher=str(finished.folder / TEACHER) if Plan(config).referred(run.method, run.seed) else None,
        codes=str(codes_again / codes / "codes.parquet") if codes else None,
        model=str(again / "model") if run.model is not None else None,
    )
    weights = []
    for number, data in enumerate((finished.folder / "results/tiny/bazaar/data", again / "data")):
        output = again / f"{run.system}-{number}/model.safetensors"
        train_run(run, data, inputs, output, again / "state", str(number))
        trained = read_tensors(output).items()
        weights.append({name: tensor.numpy().tobytes() for name, tensor in trained if name not in CHOSEN})
    assert weights[0] == weights[1]
