"""What folders to hand on add to the plan, and what is refused before anything runs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from test_final_runs import FINAL, RUN, jobs

from tessera.plan.graph import Noun
from tessera.plan.required import check_files
from tessera.settings.base import ConfigError


def test_of_several_seeds_the_first_and_the_final_run_where_there_is_one() -> None:
    found = jobs(**FINAL, experiment__export=["reaemb", "id/sasrec", "popular"])
    assert found.serving.exported() == [
        "bazaar/export/popular/popular", "bazaar/export/id/sasrec", "bazaar-final/export/reaemb/sasrec",
    ]  # fmt: skip
    assert found.serving.exported_run("id/sasrec") == Noun("run", "id/sasrec/seed-1")
    assert found.serving.exported_run("popular/popular") == Noun("run", "popular/popular/seed-0")
    files = found.serving.exported_files(RUN, "bazaar-final")
    assert files["model"] == "results/experiment/bazaar-final/runs/reaemb/sasrec/seed-1/model.safetensors"
    assert files["metrics"] == "results/experiment/bazaar/runs/reaemb/sasrec/seed-1/metrics.json"
    assert files["tables"] == ["results/experiment/bazaar-final/tables/reaemb.parquet"]


@pytest.mark.parametrize("change", [{"licence": "mit"}, {"index": "flat"}, {"onnx": False}, {"push": "me/it"}], ids=str)
def test_its_settings_are_read_by_it_alone(change: dict[str, Any]) -> None:
    plain, other = jobs(), jobs(export=change)
    assert plain.serving.export(RUN) != other.serving.export(RUN)
    assert json.loads(other.serving.export(RUN))["export"] | change == json.loads(other.serving.export(RUN))["export"]
    for what in ("settings", "validated", "inputs"):
        assert getattr(plain, what)(RUN, "bazaar") == getattr(other, what)(RUN, "bazaar")
    assert plain.serving.recommend(RUN) == other.serving.recommend(RUN)
    assert plain.evaluation(RUN) == other.evaluation(RUN)
    assert plain.comparison.report({"a": 1}) == other.comparison.report({"a": 1, "export": change})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"experiment__export": ["reaem/sasrec"]}, "experiment.export.0: unknown name 'reaem/sasrec'; did you mean"),
        ({"export": {"index": "hsnw"}}, "export.index: "),
        ({"export": {"licens": "mit"}}, "export.licens: unknown key 'licens' (value 'mit'); did you mean 'licence'?"),
        ({"export": {"push": "winner"}}, "export.push: expected OWNER/NAME of a repository (got 'winner')"),
        ({"export": {"licence": "a b"}}, "export.licence: expected the name of a licence, e.g. apache-2.0 (got 'a b')"),
    ],
)
def test_what_cannot_be_is_told(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as error:
        jobs(**changes)
    assert told in str(error.value)


def test_a_push_needs_a_token_and_one_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    pushed = {"export": {"push": "me/winner", "onnx": False}}
    check_files(jobs(**pushed).plan)  # nothing is exported, so nothing is pushed
    with pytest.raises(ConfigError, match=r"^config: export\.push: no token of the Hugging Face Hub; run `hf auth"):
        check_files(jobs(**pushed, experiment__export=["id/sasrec"]).plan)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_x")
    check_files(jobs(**pushed, experiment__export=["id/sasrec"]).plan)
    several = jobs(**pushed, experiment__export=["id/sasrec", "popular"])
    with pytest.raises(ConfigError, match=r"me/winner is one repository, but experiment\.export makes 2 folders"):
        check_files(several.plan)


def test_onnx_is_asked_for_where_there_is_a_tower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tessera.settings.export.ONNX_PACKAGES", ("no_such_package",))
    check_files(jobs(experiment__export=["popular"]).plan)
    check_files(jobs(experiment__export=["id"], export={"onnx": False}).plan)
    with pytest.raises(ConfigError, match=r"export\.onnx: no_such_package cannot be imported; pip install"):
        check_files(jobs(experiment__export=["id"]).plan)
