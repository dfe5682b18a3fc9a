"""What final runs and new items add to the plan, and what they leave alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_config import edited

from tessera.plan.graph import Noun
from tessera.plan.jobs import Jobs
from tessera.plan.required import check_files
from tessera.plan.targets import check_targets
from tessera.settings.base import ConfigError
from tessera.settings.datasets import NoSplit


def jobs(**changes: Any) -> Jobs:
    return Jobs(edited(**changes))


FINAL = {"experiment__final": "reaemb/sasrec"}
RUN = Noun("run", "reaemb/sasrec/seed-1")
ALONE = "knows an item by training on it alone"


def test_a_final_dataset_is_the_same_but_for_its_split() -> None:
    config = jobs(**FINAL).config
    assert config.finals == {"bazaar-final": "bazaar"}
    base, made = config.datasets["bazaar"], config.datasets["bazaar-final"]
    assert made.split == NoSplit()
    assert made.model_copy(update={"split": base.split}) == base
    assert jobs().config.finals == {}
    assert "bazaar-final" not in jobs().config.datasets


def test_a_source_with_parts_keeps_their_order() -> None:
    config = jobs(**FINAL, datasets__bazaar__split={"kind": "given"}).config
    assert config.datasets["bazaar-final"].split == NoSplit(by_part=True)


def test_final_runs_wait_for_the_validated_ones_and_read_the_raw_rows_of_the_base() -> None:
    found = jobs(**FINAL)
    assert found.validated(RUN, "bazaar") == {}
    assert found.validated(RUN, "bazaar-final") == {
        "validated": "results/experiment/bazaar/runs/reaemb/sasrec/seed-1/model.json"
    }
    assert found.validated(Noun("run", "popular/popular/seed-0"), "bazaar-final") == {}
    assert (found.raw("bazaar-final"), found.raw("bazaar")) == ("bazaar", "bazaar")
    latent = found.inputs(Noun("table", "latent"), "bazaar-final")
    assert latent == {"source": "results/experiment/bazaar/raw/latents.parquet"}
    assert found.settings(RUN, "bazaar-final") == found.settings(RUN, "bazaar") == jobs().settings(RUN, "bazaar")


def test_of_several_seeds_the_first_and_lists_from_the_final_run() -> None:
    found = jobs(**FINAL, experiment__recommend=["reaemb", "id/sasrec"])
    assert found.final() == ["reaemb/sasrec/seed-1"]
    assert found.serving.recommended() == [
        "bazaar/recommendations/id/sasrec/seed-1", "bazaar-final/recommendations/reaemb/sasrec/seed-1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"experiment__final": ["reaem/sasrec"]}, "experiment.final.0: unknown name 'reaem/sasrec'; did you mean"),
        (
            {**FINAL, "datasets__bazaar-final": {"source": "bazaar"}},
            "datasets.bazaar-final: experiment.final makes a dataset of this name of 'bazaar'",
        ),
        ({"datasets__bazaar__split": {"kind": "none"}}, "experiment.datasets.0: split none has no test user"),
    ],
)
def test_what_cannot_be_is_told(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as error:
        jobs(**changes)
    assert told in str(error.value)


def test_only_lists_with_new_items_depend_on_what_reads_items(tmp_path: Path) -> None:
    file = tmp_path / "new.csv"
    file.write_text("sku\na\n")
    plain, new = jobs(), jobs(recommend__new_items={"path": str(file), "id": "sku"})
    assert plain.serving.readers(RUN, "bazaar") == {}
    assert plain.serving.recommend_modules(RUN) == plain.modules(RUN)
    assert new.serving.readers(RUN, "bazaar") == {
        "readers": [
            "results/experiment/bazaar/tables/reaemb.finish.safetensors",
            "results/experiment/bazaar/embedders/reaemb/model.safetensors",
            "results/experiment/bazaar/models/small",
        ]
    }
    assert {"tessera.serving.new_items", "tessera.embedding.crrl"} <= set(new.serving.recommend_modules(RUN))
    assert new.serving.recommend_files() == {"new": [str(file)]}
    assert new.settings(RUN, "bazaar") == plain.settings(RUN, "bazaar")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["text/sasrec"], []),
        (["i3_mrec", "pad"], []),
        (["popular", "text"], [f"popular/popular {ALONE}"]),
        (["id"], [f"id/sasrec {ALONE}", f"id/gru4rec {ALONE}"]),
        (["ensemble"], [f"ensemble/ensemble has a member, id/sasrec, that {ALONE}"]),
        # these read tables, and took the trainings until their lists were refused
        (["tiger", "mme_sid"], [f"tiger/tiger {ALONE}", f"mme_sid/mme_sid {ALONE}"]),
        (["dmesr", "findrec"], [f"dmesr/sasrec {ALONE}", f"findrec/gru4rec {ALONE}"]),
        (["codes", "eimf"], [f"codes/sasrec {ALONE}", f"eimf/eimf {ALONE}"]),
        (["cider"], ["cider/gru4rec reads 'said' of recipe text alone, which makes no row of an item that came after"]),
    ],
    ids=str,
)
def test_new_items_that_nothing_places_are_refused_before_anything_runs(
    asked: list[str], told: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "new.csv"
    file.write_text("sku\na\n")
    new = {"path": str(file), "id": "sku"}
    check_files(jobs(experiment__recommend=asked).plan)
    plan = jobs(experiment__recommend=asked, recommend__new_items=new).plan
    if not told:
        check_files(plan)
        return
    with pytest.raises(ConfigError) as error:
        check_files(plan)
    lines = str(error.value).splitlines()
    assert len(lines) == len(told)
    can = "latent/sasrec, text/sasrec, llmemb/sasrec, reaemb/sasrec, pad/sasrec, i3_mrec/sasrec"
    for line, text in zip(lines, told, strict=True):
        assert line.startswith(f"config: recommend.new_items: {text}")
        assert f", so new items cannot be placed; those that can take them: {can}, i3_mrec_graph/" in line
        assert line.endswith(" out of experiment.recommend, or new_items out")
    check_targets(Jobs(plan), [f"results/experiment/bazaar/runs/{path}" for path in plan.trained])
    asked_for = [
        f"results/experiment/bazaar/recommendations/{one}/seed-1.parquet" for one in ("codes/sasrec", "pad/sasrec")
    ]
    with pytest.raises(ConfigError, match=f"^config: {asked_for[0]}: recommend.new_items: codes/sasrec {ALONE}[^\n]*$"):
        check_targets(Jobs(plan), asked_for)


def test_where_nobody_can_place_new_items_it_is_said_who_could(tmp_path: Path) -> None:
    file = tmp_path / "new.csv"
    file.write_text("sku\na\n")
    new = {"path": str(file), "id": "sku"}
    plan = jobs(experiment__recommend=["id"], experiment__systems=["popular", "id"], recommend__new_items=new).plan
    with pytest.raises(ConfigError, match=r"cannot be placed; a system with `items: \{table: NAME\}` can; leave id/"):
        check_files(plan)
