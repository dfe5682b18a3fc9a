"""What a model card says of how its numbers came about."""

from __future__ import annotations

from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from pattern import make_run

from tessera.evaluation.metrics import protocol_suffix
from tessera.serving.card import Facts, model_card
from tessera.settings.export import Export
from tessera.settings.runs import Run

JUDGED = {"users": 49, "test_users": 50, "protocol": "10 sampled", "metrics": {"NDCG@10": 0.25, "coverage@10": 0.5}}


def card(judged: dict[str, Any], judged_on: str | None = None, run: Run | None = None) -> tuple[ModelCardData, str]:
    data = {"name": "shop-final" if judged_on else "shop", "items": 3, "training interactions": 9}
    facts = Facts(run or make_run("sasrec"), Export(), {}, {}, {}, data, {}, judged, judged_on)
    made = ModelCard(model_card(facts))
    return made.data, made.text


def test_sampled_metrics_are_named_as_in_tables() -> None:
    """A number among ten negatives must not stand on a page of the Hub as if it were one of the whole catalogue."""
    data, text = card(JUDGED)
    assert {one.metric_type: one.metric_value for one in data.eval_results or []} == {
        "NDCG@10 (10 sampled)": 0.25, "coverage@10": 0.5,
    }  # fmt: skip
    assert "| NDCG@10 (10 sampled) | 0.2500 |" in text
    assert "| coverage@10 | 0.5000 |" in text
    assert "| NDCG@10 | 0.2500 |" in card({**JUDGED, "protocol": "full"})[1]
    assert (protocol_suffix("MRR", "full"), protocol_suffix("gini@5", "9 sampled")) == ("", "")


def test_metrics_of_a_final_run_are_of_the_data_set_that_they_were_measured_on() -> None:
    data, text = card(JUDGED, "shop")
    assert {one.dataset_name for one in data.eval_results or []} == {"shop"}
    assert "did not train on its validation and test targets" in text
    assert {one.dataset_name for one in card(JUDGED)[0].eval_results or []} == {"shop"}


def test_whose_targets_were_ranked_and_among_what_is_said() -> None:
    assert "49 test users; protocol: 10 sampled; items of the user's own history masked." in card(JUDGED)[1]
    assert "49 test users, drawn at random from 1,000; protocol" in card({**JUDGED, "drawn_from": 1000})[1]
    assert "49 test users; protocol" in card({**JUDGED, "drawn_from": 50})[1]
    seen = card(JUDGED, run=make_run("sasrec").model_copy(update={"mask_seen": False}))[1]
    assert "; seen items not masked." in seen
    assert "`recommend` leaves them out unless it is asked with `seen=True`." in seen
    assert "`seen=True`" not in card(JUDGED)[1]
