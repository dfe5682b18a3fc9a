"""Every rule says which sections of the config it reads; what it says is what its params and inputs change with."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from tessera.data.files import find
from tessera.plan.graph import Noun, Plan
from tessera.plan.jobs import Jobs
from tessera.plan.params import Told
from tessera.plan.search import searched
from tessera.settings.base import ConfigError
from tessera.settings.config import Config, load

ROOT = Path(__file__).resolve().parents[3]
RULES = ROOT / "workflow/rules"
EVERYTHING = "every section but resources and export"

Files = dict[str, Any]
# Edits of each section: one for every part of it that a stage may read alone.
EDITS: dict[str, list[tuple[str, Any]]] = {
    "datasets": [("bazaar.seed", 8), ("bazaar.cleaning.max_history", 9), ("bazaar.prompt.domain", "thing")],
    "preset": [("", "official")],
    "models": [("small.layers", 3)],
    "captions": [("looks.max_new_tokens", 9)],
    "tables": [("llmemb.preset", "official"), ("latent.view", "text"), ("text.pooling", "last"), ("lrcl.drop", 0.3)],
    "semantic_ids": [("plain.codes", 9), ("plain.tables", "text"), ("views.preset", "official"),
                     ("views.tables", ["collaborative", "text", "llmemb"])],
    "systems": [("tiger.beams", 10), ("latent.items.adapter", [16])],
    "backbones": [("gru4rec.hidden_dim", 8), ("sasrec.dropout", 0.3)],
    "loss": [("", {"kind": "bce"})],
    "missing": [("text", 0.5)],
    "robustness": [("rates", [0, 1])],
    "training": [("learning_rate", 0.01)],
    "evaluation": [("cutoffs", [5, 10]), ("repeat_targets", "drop"),
                   ("shift", {"rare": {"kind": "popularity"}}), ("test_users", 9),
                   ("candidates", {"kind": "sampled", "negatives": 9})],
    "significance": [("level", 0.1)],
    "claims": [("", [{"name": "more", "better": "text/sasrec", "than": "id/sasrec"}]),
               ("", [{"name": "more", "better": "r2led", "than": "din", "metric": "GAUC"}])],
    "search": [("trials", 3), ("sampler", "tpe"), ("systems", ["text"]),
               ("space", {"training.weight_decay": {"low": 0.0, "high": 0.1}})],
    "report": [("title", "Another title"), ("map", "tsne")],
    "recommend": [("k", 7)],
    "export": [("licence", "mit")],
    "ctr": [("samples.per_user", 9), ("training.learning_rate", 0.01), ("models.sim_hard.k", 4), ("baseline", "r2led"),
            ("evaluation.calibration_bins", 9), ("reference", None), ("semantic_ids", None), ("models.r2led.k", 4),
            ("content.vocabulary", 400)],
    "experiment": [("seeds", [1, 3])],
}  # fmt: skip


MORE = {
    "claims": [{"name": "better", "better": "latent/sasrec", "than": "id/sasrec"}],
    "robustness": {"lose": ["both"]},
    "search": {"trials": 2, "systems": ["id", "latent", "tiger", "mme_sid"],
               "space": {"training.beta2": {"low": 0.9, "high": 0.99}}},
}  # fmt: skip
"""What the config of rankings is given besides."""
OF_CLICKS = {"claims": [{"name": "better", "better": "r2led", "than": "din", "metric": "AUC"}]}
"""What the config of clicks is given besides."""
NAMES = {"datasets", "models", "captions", "tables", "semantic_ids", "systems", "backbones"}
"""Sections that hold settings by name."""


def changed(config: Any, path: str, value: Any) -> Any:
    """A copy with one key changed; None where the config has nothing of that name, or could not have that value."""
    found = copy.deepcopy(config)
    *outer, last = path.split(".")
    if outer and outer[0] in NAMES and outer[1:2] and outer[1] not in found.get(outer[0], {}):
        return None
    part = found
    for key in outer:
        part = part.setdefault(key, {})
    part[last] = value
    try:
        load(found)
    except ConfigError:
        return None
    return found


class Workflow:
    """What rules are read with: the library's plan, and the forms of common.smk over it."""

    def __init__(self, written: Any) -> None:
        self.config = load(written)
        text = (RULES / "common.smk").read_text()
        forms = text[text.index("# ---------------------------------------------------------------- nouns") :]
        plan = Plan(self.config)
        self.names: dict[str, Any] = {
            "CONFIG": self.config, "PLAN": plan, "JOBS": Jobs(plan), "Noun": Noun, "Told": Told, "find": find,
            "config": written,
            "DATASETS": self.config.experiment.datasets, "CANDIDATES": self.config.evaluation.candidates,
            "dataset_files": lambda config, dataset: [], "picture_names": lambda config, dataset: "",
            "unpack": lambda function: function, "os": None,
            "expand": lambda pattern, dataset: [pattern.format(dataset=name) for name in dataset],
            "flow_chart": lambda plan: "", "code_fingerprint": None, "directory": str,
            "report": lambda path, **more: path,
        }  # fmt: skip
        exec(forms, self.names)
        self.names["code"] = lambda script, *modules: ""
        self.names["noun_code"] = lambda script, kind: ""

    def wildcards(self, names: set[str]) -> Iterator[SimpleNamespace]:
        """All values of a rule's wildcards."""
        plan: Plan = self.names["PLAN"]
        for dataset in self.config.experiment.datasets:
            if names & {"trial", "round"}:
                for name in searched(plan):
                    system, recommender = name.split("/")
                    yield SimpleNamespace(dataset=dataset, system=system, recommender=recommender, trial="1", round="1")
            elif "system" in names:
                parts = (run.path.split("/") for run in plan.trained.values())
                for system, recommender, seed in parts:
                    run = {"system": system, "recommender": recommender, "seed": seed.removeprefix("seed-")}
                    yield SimpleNamespace(dataset=dataset, **run)
            elif "name" in names:
                parts = (path.split("/seed-") for path in plan.click_runs)
                yield from (SimpleNamespace(dataset=dataset, name=a, seed=b) for a, b in parts)
            else:
                kinds = {"table": "table", "codes": "semantic_ids", "model": "model", "captions": "captions"}
                (key,) = (names & kinds.keys()) or {""}
                for name in plan.needed(kinds[key]) if key else [""]:
                    yield SimpleNamespace(dataset=dataset, **({key: name} if key else {}))


def blocks(rule: str, section: str) -> str:
    """The text of a rule's section."""
    found = re.search(rf"^    {section}:\n((?:        .*\n|\n)+)", rule, re.MULTILINE)
    return found[1] if found else ""


def carried(rule: str, workflow: Workflow) -> dict[str, str]:
    """What every job of a rule carries, by its wildcards: params and inputs, as text."""
    given: dict[str, Any] = eval(f"dict({blocks(rule, 'params')})", workflow.names)
    listed, named = eval(
        f"(lambda *listed, **named: (listed, named))({blocks(rule, 'input')})", workflow.names
    )  # fmt: skip
    parts = [*given.values(), *listed, *named.values()]
    names = set(re.findall(r"\{(\w+)\}", blocks(rule, "output")))
    found = {}
    for wildcards in workflow.wildcards(names):
        if "table" in names and not fits(rule, wildcards, workflow):
            continue
        found[str(wildcards)] = str([part(wildcards) if callable(part) else part for part in parts])
    return found


def fits(rule: str, wildcards: SimpleNamespace, workflow: Workflow) -> bool:
    """Whether a rule that makes something of a table is meant for this one."""
    recipe, plan = workflow.config.tables[wildcards.table], workflow.names["PLAN"]
    if rule.startswith("rule tune"):
        return bool(recipe.TRAINS)
    if rule.startswith(("rule diagnose", "rule atlas")):
        return wildcards.table in workflow.names["JOBS"].comparison.diagnosed()
    return (plan.reader(wildcards.table) is not None) == rule.startswith("rule embed")


def rules() -> dict[str, tuple[str, str, str]]:
    """name -> (comment, text, file) of every rule."""
    found = {}
    for path in sorted(RULES.glob("*.smk")):
        for match in re.finditer(r"((?:^#.*\n)*)^(rule (\w+):\n(?:    .*\n|\n)+)", path.read_text(), re.MULTILINE):
            found[match[3]] = (match[1], match[2], path.name)
    return found


CLICKS = "; of clicks: "
"""In a comment: what the rule of both tasks reads where the task is clicks."""


def of_tasks() -> list[tuple[str, str]]:
    """Every rule with the config that it is of; rules of both tasks with both."""
    ctr = {"ctr.smk": ("ctr-tiny.yaml",), "report.smk": ("tiny.yaml", "ctr-tiny.yaml")}
    return [(rule, name) for rule, (_, _, file) in sorted(rules().items()) for name in ctr.get(file, ("tiny.yaml",))]


@pytest.fixture(scope="module")
def workflows() -> Callable[[Any], Workflow]:
    known: dict[str, Workflow] = {}

    def of(config: Any) -> Workflow:
        key = str(config)
        if key not in known:
            known[key] = Workflow(config)
        return known[key]

    return of


@cache
def base_of(name: str) -> Any:
    """A shipped config, with sections that it lacks."""
    base = yaml.safe_load((ROOT / "config" / name).read_text()) | (MORE if name == "tiny.yaml" else OF_CLICKS)
    if name == "ctr-tiny.yaml":
        base["ctr"]["models"]["lemur"] = {"model": "lemur"}  # which reads content
    return base


@cache
def edited(name: str) -> list[tuple[str, Any]]:
    """The sections, and a copy of a shipped config for each of their edits that it could have."""
    found = []
    for section, edits in EDITS.items():
        for path, value in edits:
            place = ".".join(filter(None, [section, path]))
            if name == "ctr-tiny.yaml":
                place = place.replace("bazaar", "lifelong")
            config = changed(base_of(name), place, value)
            if config is not None:
                found.append((section, config))
    return found


def read(rule: str, name: str, workflows: Callable[[Any], Workflow]) -> set[str]:
    """The sections that what a rule carries changes with."""
    text = rules()[rule][1]
    before = carried(text, workflows(base_of(name)))
    found = set()
    for section, config in edited(name):
        after = carried(text, workflows(config))
        if any(before[key] != after[key] for key in before.keys() & after.keys()):
            found.add(section)
    return found


def test_every_job_is_tried_again_as_its_stage_says() -> None:
    """And its script is told which attempt it is: memory grows, and what is wrong for good is not tried again."""
    for path in sorted((ROOT / "workflow/rules").glob("*.smk")):
        for name, body in re.findall(r"^rule (\w+):\n(.*?)(?=^\S|\Z)", path.read_text(), re.MULTILINE | re.DOTALL):
            if (script := re.search(r'script:\s+"../../(scripts/\w+\.py)"', body)) is None:
                continue
            (stage,) = re.findall(r'resources\("(\w+)"', body)
            # where the config asks for none, the command line's `--retries` count
            assert f"retries: CONFIG.resources.{stage}.retries or None\n" in body, name
            assert "snakemake.resources.attempt" in (ROOT / script[1]).read_text(), name


def test_what_is_counted_takes_no_gpu_and_one_thread(workflows: Callable[[Any], Workflow]) -> None:
    config = yaml.safe_load((ROOT / "config/tiny.yaml").read_text())
    config["resources"] = {"train": {"gpu": 1, "threads": 4}, "evaluate": {"gpu": 1}}
    for name, rule in (("train", "recommend.smk"), ("evaluate", "evaluate.smk"), ("recommend", "serve.smk")):
        body = (ROOT / "workflow/rules" / rule).read_text().partition(f"rule {name}:")[2].partition("\nrule ")[0]
        assert re.search(r"\*\*resources\(\"\w+\", trained\)", body), name
    names = workflows(config).names
    wildcards = SimpleNamespace(dataset="bazaar", system="popular", recommender="popular", seed="0")
    learned = SimpleNamespace(dataset="bazaar", system="id", recommender="sasrec", seed="1")
    assert not names["trained"](wildcards)
    assert names["trained"](learned)
    needs = names["resources"]("train", names["trained"])
    assert (needs["gpu"](wildcards), needs["gpu"](learned)) == (0, 1)
    del learned.seed  # of a row, as trials and folders to hand on are
    assert names["trained"](learned)


def test_every_section_is_edited() -> None:
    assert set(EDITS) == set(Config.model_fields) - {"task", "resources"}


@pytest.mark.parametrize(("rule", "config"), of_tasks())
def test_a_rule_says_what_it_reads(rule: str, config: str, workflows: Callable[[Any], Workflow]) -> None:
    comment, text, _ = rules()[rule]
    told = re.search(r"^# Reads of the config: (.*)\.$", comment, re.MULTILINE)
    assert told is not None, f"rule {rule}: no comment '# Reads of the config: ...'"
    if told[1] == EVERYTHING:
        assert "JOBS.comparison.report(config)" in text or "flow_chart(PLAN)" in text
        return
    ranking, _, clicks = told[1].partition(CLICKS)
    said = clicks if clicks and config == "ctr-tiny.yaml" else ranking
    assert (set() if said == "nothing" else set(said.split(", "))) == read(rule, config, workflows)
