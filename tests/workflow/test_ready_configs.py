"""The ready configs for real models, as they are shipped, over small random models of the same architectures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from tiny_project import Project, copy_repository
from tiny_qwen import write_qwen, write_qwen_vl

from tessera.plan.graph import Noun, Plan
from tessera.plan.jobs import Jobs
from tessera.settings.config import Config, load

pytestmark = pytest.mark.workflow

ITEMS = 12
# What is really made: captions of every kind of question about pictures, and the tables that read them.
MADE = {
    "reaemb-qwen.yaml": {"captions": ["looks"], "table": ["text"]},
    "dmesr-qwen.yaml": {"captions": ["said_of_both"], "table": ["both", "attributes"]},
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A shop and two models where the configs look for them, and two pretended GPUs."""
    made = Project(tmp_path_factory.mktemp("ready") / "tessera")
    copy_repository(made.folder)
    write_qwen_vl(made.folder / "models/Qwen2.5-VL-3B-Instruct")
    write_qwen(made.folder / "models/Qwen2.5-0.5B-Instruct")
    shop = made.folder / "shop"
    (shop / "pictures").mkdir(parents=True)
    rows = [f"u{user},i{1 + (user + step) % ITEMS},{1000 + step}" for user in range(30) for step in range(6)]
    (shop / "log.csv").write_text("user,item,time\n" + "\n".join(rows) + "\n")
    items = [f"i{item},Oak lamp No. {item},lamp,Dunlin,Of oak. Heavy." for item in range(1, ITEMS + 1)]
    (shop / "items.csv").write_text("item,title,category,brand,description\n" + "\n".join(items) + "\n")
    for item in range(1, ITEMS):  # the last has no picture
        pixels = np.random.default_rng(item).integers(0, 255, (70, 56, 3), np.uint8)
        Image.fromarray(pixels).save(shop / f"pictures/i{item}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "7,9")
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("locks")))
        patch.delenv("TESSERA_DATA", raising=False)
        patch.delenv("SLURM_JOB_ID", raising=False)
        yield made


def shipped(project: Project, name: str) -> Config:
    written = yaml.safe_load((project.folder / "config" / name).read_text())
    return load({**written, "experiment": {"name": Path(name).stem, **written["experiment"]}})


@pytest.mark.parametrize("name", MADE)
def test_the_whole_plan_is_there(name: str, project: Project) -> None:
    counts = project.stale(f"config/{name}")
    config = shipped(project, name)
    plan = Plan(config)
    assert counts["caption"] == len(plan.needed("captions")) == len(config.captions)
    assert counts["caption_part"] == 4 * len(config.captions)
    assert counts["embed"] == len(plan.needed("table")) == len(config.tables)
    assert counts["train"] == len(plan.trained)
    assert counts.get("tune", 0) == sum(recipe.TRAINS for recipe in config.tables.values())


@pytest.mark.parametrize("name", MADE)
def test_captions_and_tables_are_made_a_job_a_gpu(name: str, project: Project) -> None:
    jobs = Jobs(Plan(shipped(project, name)))
    files = {
        noun: jobs.file(noun, "shop") for kind, names in MADE[name].items() for noun in (Noun(kind, n) for n in names)
    }
    done = project.snakemake(*files.values(), "--cores", "2", "--resources", "gpu=2", "--configfile", f"config/{name}")
    assert done.returncode == 0, done.stdout[-6000:]
    for noun, file in files.items():
        table = pq.read_table(project.folder / file)
        rows = {row["item"] for row in table.to_pylist()}
        assert len(rows) == (ITEMS - 1 if noun.name == "both" else ITEMS), noun
        if noun.kind == "captions":
            statuses = table.column("status").to_pylist()
            assert statuses.count("captioned") == ITEMS - 1
            assert statuses.count("no picture") == 1
    logs = [path.read_text() for path in (project.folder / "results").glob("*/logs/**/*.log")]
    devices = [found for text in logs for found in re.findall(r"computes on GPU (\S+)", text)]
    assert len(devices) >= len(files)
    assert set(devices) <= {"7", "9"}


def test_joining_parts_asks_for_no_gpu(project: Project) -> None:
    shown = project.snakemake("-n", "--forceall", "--configfile", "config/reaemb-qwen.yaml").stdout
    asked = [
        (rule, gpu) for rule, gpu in re.findall(r"^rule (\w+):\n(?:    .*\n)*?    resources: .*gpu=(\d)", shown, re.M)
    ]
    assert {gpu for rule, gpu in asked if rule == "caption"} == {"0"}
    assert {gpu for rule, gpu in asked if rule in ("caption_part", "embed")} == {"1"}
    assert {gpu for rule, gpu in asked if rule == "train"} == {"0", "1"}  # popular is counted


LACKING: dict[str, tuple[dict[str, Any], str]] = {
    "4 bit": ({"quantization": "4bit"}, r"models\.sees\.quantization: 4bit needs the package bitsandbytes.*quantized"),
    "flash": ({"attention": "flash_attention_2"}, r"models\.sees\.attention: flash_attention_2 needs the package"),
}


@pytest.mark.parametrize(("keys", "message"), LACKING.values(), ids=LACKING)
def test_what_is_not_installed_is_told_before_the_run(keys: dict[str, Any], message: str, project: Project) -> None:
    config = yaml.safe_load((project.folder / "config/dmesr-qwen.yaml").read_text())
    config["models"]["sees"] |= keys
    done = project.snakemake("-n", "--configfile", project.write_config(config, "lacking.yaml"))
    assert done.returncode != 0
    assert re.search(message, done.stdout), done.stdout[-2000:]


def test_the_configs_say_that_they_were_not_run() -> None:
    for name in MADE:
        text = Path(__file__).parents[2].joinpath("config", name).read_text()
        assert "NOT RUN" in text
        assert "docs/ready.md" in text
