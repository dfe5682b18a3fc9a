"""The plan of a config: what nouns read, in what order they are made, what jobs get, and the picture of it."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from tiny_config import edited

from tessera.plan.graph import Noun, Plan
from tessera.plan.jobs import AFTER_TRAINING, Jobs
from tessera.plan.picture import flow_chart
from tessera.reporting.rule_graph import layers, parse, reduce
from tessera.settings.config import load

ROOT = Path(__file__).resolve().parents[3]
CONFIGS = sorted(path.name for path in (ROOT / "config").glob("*.yaml"))


def plan_of(name: str) -> Plan:
    return Plan(load(yaml.safe_load((ROOT / "config" / name).read_text())))


@pytest.fixture(scope="module")
def tiny() -> Plan:
    return plan_of("tiny.yaml")


# ---------------------------------------------------------------- what nouns read


@pytest.mark.parametrize(
    ("noun", "reads"),
    [
        (Noun("run", "popular/popular/seed-0"), []),
        (Noun("run", "id/gru4rec/seed-2"), []),
        (Noun("run", "text/sasrec/seed-1"), [Noun("table", "text")]),
        (Noun("run", "llmemb/sasrec/seed-2"), [Noun("table", "llmemb"), Noun("run", "id/sasrec/seed-2")]),
        (Noun("run", "tiger/tiger/seed-1"), [Noun("semantic_ids", "plain")]),
        (Noun("run", "codes/sasrec/seed-1"), [Noun("semantic_ids", "views"), Noun("table", "text")]),
        (Noun("semantic_ids", "learned"), [Noun("table", "text"), Noun("table", "llmemb")]),
        (Noun("table", "latent"), []),
        (Noun("table", "collaborative"), [Noun("run", "id/sasrec/seed-1")]),
        (Noun("table", "text"), [Noun("model", "small")]),
        (Noun("table", "llmemb"), [Noun("embedder", "llmemb"), Noun("model", "small")]),
        (Noun("embedder", "llmemb"), [Noun("model", "small")]),
        (Noun("embedder", "reaemb"), [Noun("embedder", "lrcl"), Noun("captions", "looks"), Noun("model", "small")]),
        (Noun("captions", "looks"), [Noun("model", "small")]),
        (Noun("model", "small"), []),
    ],
    ids=lambda value: f"{value.kind}-{value.name.replace('/', '-')}" if isinstance(value, Noun) else "",
)
def test_reads(tiny: Plan, noun: Noun, reads: list[Noun]) -> None:
    assert tiny.reads(noun) == reads


def test_a_system_with_a_model_reads_tables_of_its_codes(tiny: Plan) -> None:
    reads = tiny.reads(Noun("run", "mme_sid/mme_sid/seed-1"))
    tables = [Noun("table", name) for name in ("collaborative", "text", "reaemb")]
    assert set(reads) == {Noun("semantic_ids", "views"), Noun("model", "small"), *tables}


def test_what_nobody_reads_is_not_made() -> None:
    plan = edited(experiment__systems=["id", "popular"])
    assert {noun.kind for noun in plan.nouns} == {"run"}
    plan = edited(experiment__systems=["codes"], significance={})
    assert Noun("run", "id/sasrec/seed-1") in plan.nouns  # its vectors are a table, its table codes
    assert plan.needed("semantic_ids") == ["views"]
    assert {run.path for run in plan.runs} == {"codes/sasrec/seed-1"}


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_read_is_made_before(name: str) -> None:
    if name == "README.md":
        return
    plan = plan_of(name)
    place = {noun: number for number, noun in enumerate(plan.nouns)}
    assert len(place) == len(plan.nouns) > 0
    for noun in plan.nouns:
        assert all(place[read] < place[noun] for read in plan.reads(noun)), noun


def test_closure_holds_what_is_wanted_and_no_more(tiny: Plan) -> None:
    wanted = Noun("embedder", "llmemb")
    assert tiny.closure([wanted]) == [Noun("model", "small"), wanted]
    assert tiny.closure([]) == []


# ---------------------------------------------------------------- remarks


def remarks(plan: Plan, system: str) -> list[str]:
    return next(run.remarks for run in plan.runs if run.system == system)


def test_remarks_are_of_what_a_run_reads_and_of_nothing_else() -> None:
    plan = edited(tables__llmemb__preset="official", backbones__gru4rec__preset="official")
    told = "table llmemb was made under preset official"
    assert remarks(plan, "llmemb") == [told]
    assert told in remarks(plan, "tiger")  # through its codes
    assert remarks(plan, "text") == []
    assert remarks(plan, "popular") == []
    under = {run.path: run.remarks for run in plan.runs if run.system == "id"}
    assert under["id/gru4rec/seed-1"] == ["backbone gru4rec runs under preset official"]
    assert under["id/sasrec/seed-1"] == []


def test_the_start_of_a_table_is_told_too() -> None:
    plan = edited(tables__lrcl__preset="official")
    assert "table lrcl was made under preset official" in remarks(plan, "reaemb")


def test_reconstructions_are_told_as_such() -> None:
    plan = edited()
    (dmesr,) = (run for run in plan.runs if run.system == "dmesr")
    assert dmesr.remarks == ["a reconstruction: its code was not published"]
    clicks = yaml.safe_load((ROOT / "config/ctr-tiny.yaml").read_text())
    told = {run.name: run.remarks for run in Plan(load(clicks)).click_runs.values()}
    assert told.pop("r2led") == ["a reconstruction from the abstract"]
    assert not any(told.values())


def test_the_preset_of_a_click_model_is_told_too() -> None:
    clicks = yaml.safe_load((ROOT / "config/ctr-tiny.yaml").read_text())
    for name, preset in (("plain", "correct"), ("published", "official")):
        clicks["ctr"]["models"][name] = {"model": "mirrn", "preset": preset}
    told = {run.name: run.remarks for run in Plan(load(clicks)).click_runs.values()}
    assert told["published"] == ["runs under preset official"]
    assert told["plain"] == []


# ---------------------------------------------------------------- what jobs get


def test_inputs_are_files_of_what_is_read(tiny: Plan) -> None:
    jobs = Jobs(tiny)
    llmemb = Noun("run", "llmemb/sasrec/seed-2")
    assert jobs.inputs(llmemb, "bazaar") == {
        "tables": ["results/experiment/bazaar/tables/llmemb.parquet"],
        "teacher": "results/experiment/bazaar/runs/id/sasrec/seed-2/model.safetensors",
    }
    assert "teacher" not in jobs.inputs(llmemb, "bazaar", judged=True)
    codes = jobs.inputs(Noun("run", "tiger/tiger/seed-1"), "bazaar")
    assert codes["codes"] == "results/experiment/bazaar/semantic_ids/plain/codes.parquet"
    assert jobs.inputs(Noun("table", "latent"), "bazaar") == {"source": "results/experiment/bazaar/raw/latents.parquet"}


def test_scores_in_parts_are_files_that_are_read(tmp_path: Path) -> None:
    for name in ("part-10.csv", "part-2.csv", "_SUCCESS", "notes.txt"):
        (tmp_path / name).write_text("user,item,score\n")
    plan = Plan(
        load(
            {
                "datasets": {"shop": {"source": "bazaar"}},
                "systems": {"mine": {"recommender": "given", "path": str(tmp_path)}},
                "experiment": {"datasets": ["shop"], "systems": ["popular", "mine"]},
            }
        )
    )
    run = next(noun for noun in plan.nouns if noun.kind == "run" and noun.name.startswith("mine"))
    read = [str(tmp_path / "part-2.csv"), str(tmp_path / "part-10.csv")]
    assert Jobs(plan).inputs(run, "shop")["source"] == read


def test_every_input_of_a_noun_is_made_by_one_that_it_reads(tiny: Plan) -> None:
    jobs = Jobs(tiny)
    for noun in tiny.nouns:
        values = jobs.inputs(noun, "bazaar").values()
        given = {file for value in values for file in ([value] if isinstance(value, str) else value)}
        assert {jobs.file(read, "bazaar") for read in tiny.reads(noun)} <= given, noun


def test_training_an_embedder_knows_nothing_of_what_follows(tiny: Plan) -> None:
    jobs = Jobs(tiny)
    trained = json.loads(jobs.settings(Noun("embedder", "llmemb"), "bazaar"))
    made = json.loads(jobs.settings(Noun("table", "llmemb"), "bazaar"))
    assert set(made["table"]) - set(trained["table"]) == set(AFTER_TRAINING)


def test_a_run_is_not_another_for_what_is_told_of_it() -> None:
    plain, told = Jobs(edited()), Jobs(edited(tables__llmemb__preset="official"))
    tiger = Noun("run", "tiger/tiger/seed-1")
    assert plain.settings(tiger, "bazaar") == told.settings(tiger, "bazaar")
    assert plain.evaluation(tiger) != told.evaluation(tiger)


def test_settings_do_not_depend_on_the_order_of_keys(tiny: Plan) -> None:
    config = yaml.safe_load((ROOT / "config/tiny.yaml").read_text())
    inside = {key: dict(reversed(part.items())) if isinstance(part, dict) else part for key, part in config.items()}
    turned = Plan(load(dict(reversed(inside.items()))))
    for noun in tiny.nouns:
        assert Jobs(tiny).settings(noun, "bazaar") == Jobs(turned).settings(noun, "bazaar")


# ---------------------------------------------------------------- the picture


def reach(edges: list[tuple[str, str]]) -> set[tuple[str, str]]:
    """All pairs that a path joins."""
    found = set(edges)
    while True:
        longer = {(a, d) for a, b in found for c, d in edges if b == c} - found
        if not longer:
            return found
        found |= longer


@pytest.mark.parametrize("name", CONFIGS)
def test_the_picture_has_no_loop_and_reduction_keeps_what_follows_from_what(name: str) -> None:
    edges, labels = parse(flow_chart(plan_of(name)))
    assert {node for edge in edges for node in edge} == labels.keys()
    layers(edges)  # refuses a loop
    assert reach(reduce(edges)) == reach(edges)
    joined = {b for a, b in reach(edges) if a == "data"}
    assert joined == labels.keys() - {"data"}
    assert ("judge", "page") in edges


def test_a_loop_of_rules_is_a_chain_of_nouns(tiny: Plan) -> None:
    edges, labels = parse(flow_chart(tiny))
    of = {label: node for node, label in labels.items()}
    chain = ["run: id", "item table: collaborative", "semantic IDs: views", "run: mme_sid"]
    joined = reach(reduce(edges))
    for before, after in pairwise(chain):
        assert (of[before], of[after]) in joined
        assert (of[after], of[before]) not in joined


def test_every_noun_is_in_the_picture(tiny: Plan) -> None:
    _, labels = parse(flow_chart(tiny))
    shown = " ".join(labels.values())
    for kind in ("table", "semantic_ids", "embedder", "captions", "model"):
        for name in tiny.needed(kind):
            assert re.search(rf"\b{name}\b", shown), name
