"""Edit one key, or one line, and exactly what depends on it runs again."""

from __future__ import annotations

import os
from typing import Any

import pytest
from PIL import Image
from tiny_project import Project

from tessera.settings.config import Config
from tessera.settings.sources.base import DatasetSettings

pytestmark = pytest.mark.workflow

SHOWN = {"tables": 1, "report": 1}
JUDGED = {"evaluate": 28, "oracle": 1, **SHOWN}
SHIFT = {"shift": 1, **SHOWN}
ALL_CODES = {"quantize": 3, "health": 3}


def runs(count: int) -> dict[str, int]:
    """So many runs are trained and judged."""
    return {"train": count, "evaluate": count, **SHOWN}


def codes(count: int) -> dict[str, int]:
    """So many sets of semantic IDs are made."""
    return {"quantize": count, "health": count}


def atlas(*names: str) -> dict[str, int]:
    """Maps of these tables, and of those that semantic IDs of these names are made of, are drawn again."""
    made_of = {"plain": {"llmemb"}, "learned": {"text", "llmemb"}, "views": {"collaborative", "text", "reaemb"}}
    return {"atlas": len(set().union(*(made_of.get(name, {name}) for name in names)))}


# what reads items through a language model, and what reads it in turn
READ = {"caption": 1, "tune": 4, "embed": 7, "diagnose": 5, "atlas": 6, **ALL_CODES, **runs(19)}
MADE_ANEW = {"prepare": 1, "shift": 1, "table": 2, "pretrain": 1}
PREPARED = {**MADE_ANEW, **READ, "diagnose": 7, "atlas": 7, "train": 28, **JUDGED}
# the ID run of the first seed is a table, which is part of the codes of `codes` and `mme_sid`
COLLABORATIVE = {"table": 1, "diagnose": 1, **codes(1), **atlas("views")}
TRAINED = {**COLLABORATIVE, **runs(25)}
ONE_TABLE = {"embed": 1, "diagnose": 1}
REFINISHED = {"embed": 7, "diagnose": 5, "atlas": 6, **ALL_CODES, **runs(19)}
REAEMB = {**ONE_TABLE, **codes(1), **atlas("views"), **runs(4)}
MOCA = {**ONE_TABLE, **atlas("moca"), **runs(1)}
# `reaemb` learns from captions, which `said` holds
CAPTIONED = {"tune": 2, "embed": 2, "diagnose": 2, **codes(1), **atlas("said", "views"), **runs(9)}
# pictures are read for captions, and by `moca` itself
PICTURED = {**CAPTIONED, "tune": 3, "embed": 3, "diagnose": 3, **atlas("said", "views", "moca")}

CASES: list[tuple[str, Any, dict[str, int]]] = [
    ("task", "sequential", {"report": 1}),
    ("ctr", {"samples": {"source": "positives"}, "models": {"din": {"model": "din"}}}, {"report": 1}),
    ("datasets__bazaar__seed", 8, {"generate": 1, **PREPARED}),
    ("datasets__bazaar__cleaning__max_rejected", 0.2, {"generate": 1, **PREPARED}),
    ("datasets__bazaar__cleaning__max_history", 9, PREPARED),
    ("datasets__bazaar__catalogue", "all", PREPARED),
    ("datasets__bazaar__split", {"kind": "global_temporal"}, PREPARED),
    # sessions are other users: no oracle knows them
    ("datasets__bazaar__sessions", {"kind": "gap", "minutes": 600.0},
     {rule: jobs for rule, jobs in PREPARED.items() if rule != "oracle"}),
    ("datasets__bazaar__prompt__domain", "thing", {"pretrain": 1, **READ}),
    ("models__small__training__steps", 7, {"pretrain": 1, **READ}),
    ("captions__looks__max_new_tokens", 9, {"caption": 1, **CAPTIONED}),
    # how the work is cut changes no result
    ("captions__looks__shard", 7, {"report": 1}),
    ("tables__latent__view", "text", {"table": 1, "diagnose": 1, **atlas("latent"), **runs(2)}),
    ("tables__text__pooling", "last", {**ONE_TABLE, **codes(2), **atlas("learned", "views"), **runs(9)}),
    ("tables__llmemb__pca", 7, {**ONE_TABLE, **codes(2), **atlas("plain", "learned"), **runs(4)}),
    ("tables__llmemb__drop", 0.3, {"tune": 1, **ONE_TABLE, **codes(2), **atlas("plain", "learned"), **runs(4)}),
    ("tables__lrcl__drop", 0.3, {"tune": 2, **REAEMB}),
    ("tables__reaemb__noise_std", 0.2, {"tune": 1, **REAEMB}),
    ("tables__moca__temperature", 0.2, {"tune": 1, **MOCA}),
    ("tables__reaemb__learns", "both", {"tune": 1, **REAEMB}),
    ("tables__reaemb__policy", "vector", {"tune": 1, **REAEMB}),
    ("tables__reaemb__negatives", "hard", {"tune": 1, **REAEMB}),
    ("tables__reaemb__reward", "ndcg", {"tune": 1, **REAEMB}),
    ("tables__interests__most", 2, {"embed": 1, **runs(3)}),
    ("tables__collaborative__seed", 2, {**COLLABORATIVE, **runs(2)}),
    ("semantic_ids__plain__codes", 9, {**codes(1), **atlas("plain"), **runs(1)}),
    ("semantic_ids__learned__conflicts", "none", {**codes(1), **atlas("learned"), **runs(1)}),
    ("semantic_ids__views__commitment", 0.1, {**codes(1), **atlas("views"), **runs(2)}),
    ("systems__latent__items__adapter", [16], runs(2)),
    ("systems__llmemb__items__align__weight", 0.1, runs(2)),
    ("systems__codes__items__combine", "sum", runs(1)),
    ("systems__tiger__beams", 10, runs(1)),
    ("systems__dmesr__items__direction", "fine", runs(1)),
    ("systems__pad__align", None, runs(1)),
    ("systems__findrec__gate", "mean", runs(1)),
    # it is a member of the ensemble, which teaches another
    ("systems__eimf__matching", None, runs(3)),
    ("systems__ensemble__weights", [1, 1], runs(2)),
    ("systems__ensemble__rounds", 1, runs(2)),
    ("systems__ensemble__shares", [0.0, 0.5], runs(2)),
    ("systems__ensemble__members", ["id/gru4rec", "eimf"], runs(2)),
    ("systems__distilled__weight", 0.9, runs(1)),
    ("systems__distilled__teacher", "id/sasrec", {"rulegraph": 1, **runs(1)}),
    ("systems__i3_mrec__ids", "none", runs(1)),
    ("systems__i3_mrec_graph__layers", 2, runs(1)),
    ("systems__cider__popularity", None, runs(1)),
    ("systems__mme_sid__gate", False, runs(1)),
    ("systems__item_knn", {"recommender": "item_knn", "neighbours": 5}, runs(1)),
    # the graph of rules has a way more: a system without training reads a table
    ("systems__markov", {"recommender": "markov", "similar": {"table": "latent"}}, {"rulegraph": 1, **runs(1)}),
    ("backbones__gru4rec__hidden_dim", 8, runs(5)),
    # EIMF has no published habits
    ("preset", "official",
     {**COLLABORATIVE, **runs(24), "tune": 3, "embed": 2, "diagnose": 3, "atlas": 4, **ALL_CODES}),
    ("loss", {"kind": "bce"}, {**COLLABORATIVE, **runs(21)}),
    # what reads a table that is made from pictures
    ("missing", {"image": 0.5}, runs(10)),
    # nothing is trained or judged again as it was
    ("robustness", {}, {"corrupt": 16, "robustness": 1, "report": 1}),
    ("training__learning_rate", 0.01, TRAINED),
    ("evaluation__cutoffs", [5, 10], JUDGED),
    # validation, which stops training, asks what the test asks
    ("evaluation__repeat_targets", "drop", {**TRAINED, **JUDGED, **SHIFT}),
    # who is left out of the averages is in no test set that differs from training
    ("evaluation__cold_targets", "drop", {**JUDGED, **SHIFT}),
    ("evaluation__cold_targets", "rank", JUDGED),
    ("evaluation__shift__late__after", 0.3, SHIFT),
    ("evaluation__shift", {"even": {"kind": "popularity", "draw": "bins"}}, SHIFT),
    ("evaluation__shift", {}, SHOWN),
    ("evaluation__candidates", {"kind": "sampled", "negatives": 9}, {"candidates": 1, **JUDGED}),
    ("evaluation__test_users", 40, {"test_users": 1, "shift": 1, **JUDGED}),
    ("significance__level", 0.1, SHOWN),
    # of a system that one table's vectors are not made of: its runs are those of the best trial
    ("search",
     {"trials": 2, "systems": ["text"], "space": {"training.learning_rate": {"low": 1.0e-4, "high": 0.01}}},
     {"trial": 2, "choose": 1, **runs(2)}),
    ("claims", [{"name": "text pays", "better": "text/sasrec", "than": "id/sasrec", "metric": "NDCG@10"}],
     {"claims": 1, "report": 1}),
    # nothing has asked for folders or lists yet; the page shows what is asked of lists
    ("export__onnx", False, {}),
    ("recommend__k", 3, {"report": 1}),
    ("report__title", "Another title", {"report": 1}),
    ("report__map", "tsne", {"atlas": 7, "report": 1}),
    ("report__map", None, {"report": 1}),
    ("resources__train__mem_mb", 700, {}),
    ("resources__train__threads", 2, TRAINED),
    ("resources__prepare__threads", 2, {}),
    ("resources__quantize__mem_mb", 700, {}),
    ("experiment__seeds", [1, 2, 3], runs(6)),
    ("experiment__backbones", ["sasrec"], {"rulegraph": 1, **SHOWN}),
    (
        "experiment__systems",
        ["id", "popular", "item_knn", "markov", "latent", "text", "llmemb", "reaemb", "codes", "tiger", "tiger_exact",
         "dmesr", "pad", "findrec", "eimf", "i3_mrec", "i3_mrec_graph", "cider", "mme_sid",
         "distilled"],  # all but the ensemble
        {"rulegraph": 1, **SHOWN},
    ),
]  # fmt: skip


def test_every_section_has_a_case() -> None:
    edited = {path.split("__")[0] for path, _, _ in CASES}
    assert edited == set(Config.model_fields)
    parts = {path.split("__")[2] for path, _, _ in CASES if path.startswith("datasets")}
    assert parts >= set(DatasetSettings.model_fields) - {"source"}


@pytest.mark.parametrize(("path", "value", "expected"), CASES, ids=[path for path, _, _ in CASES])
def test_settings(finished: Project, path: str, value: Any, expected: dict[str, int]) -> None:
    # an edit of what is run shows in the page, which shows the config; an edit of resources shows nowhere
    config = finished.write_config(finished.config(**{path: value}))
    # the default of significance.baseline must stay a run of the experiment
    assert finished.stale(config) == expected


def test_another_picture_under_an_old_name(finished: Project) -> None:
    picture = next((finished.folder / "results/tiny/bazaar/raw/images").glob("*.png"))
    stamp = finished.folder / "results/tiny/bazaar/raw/pictures.json"
    kept = {path: (path.read_bytes(), path.stat()) for path in (picture, stamp)}
    Image.new("RGB", (40, 40), "red").save(picture)
    try:
        assert finished.stale() == {"caption": 1, **PICTURED}
    finally:
        for path, (data, status) in kept.items():
            path.write_bytes(data)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert finished.stale() == {}


def test_the_order_of_keys_is_nothing(finished: Project) -> None:
    config = dict(reversed(finished.config().items()))
    config["backbones"] = dict(reversed(config["backbones"].items()))
    assert finished.stale(finished.write_config(config)) == {}


LIBRARY = "src/tessera"
CODE = [
    (f"{LIBRARY}/reporting/plots.py", "\n# a comment\n", {}),
    (f"{LIBRARY}/reporting/page.css", "\n/* more */\n", {"report": 1}),
    (f"{LIBRARY}/recommenders/backbones/gru4rec.py", "\n# a comment\n", {}),
    (f"{LIBRARY}/settings/reporting.py", "\n_MORE = 1\n", {"report": 1}),
    (f"{LIBRARY}/reporting/plots.py", "\n_MORE = 1\n", {"report": 1}),
    (f"{LIBRARY}/recommenders/backbones/gru4rec.py", "\n_MORE = 1\n", runs(5)),
    (f"{LIBRARY}/recommenders/item_encoders/table.py", "\n_MORE = 1\n", runs(10)),
    (f"{LIBRARY}/recommenders/item_encoders/semantic_ids.py", "\n_MORE = 1\n", runs(1)),
    (f"{LIBRARY}/recommenders/systems/markov.py", "\n_MORE = 1\n", runs(1)),
    (f"{LIBRARY}/recommenders/transition_shares.py", "\n_MORE = 1\n", runs(1)),
    (f"{LIBRARY}/recommenders/systems/tiger.py", "\n_MORE = 1\n", runs(2)),
    (f"{LIBRARY}/recommenders/systems/pad.py", "\n_MORE = 1\n", runs(1)),
    (f"{LIBRARY}/recommenders/systems/findrec.py", "\n_MORE = 1\n", runs(1)),
    (f"{LIBRARY}/recommenders/systems/eimf.py", "\n_MORE = 1\n", runs(3)),
    (f"{LIBRARY}/recommenders/systems/ensemble.py", "\n_MORE = 1\n", runs(2)),
    (f"{LIBRARY}/recommenders/systems/distilled.py", "\n_MORE = 1\n", runs(1)),
    (f"{LIBRARY}/recommenders/soft_targets.py", "\n_MORE = 1\n", runs(1)),
    (f"{LIBRARY}/recommenders/systems/cider.py", "\n_MORE = 1\n", runs(1)),
    (f"{LIBRARY}/recommenders/environments.py", "\n_MORE = 1\n", runs(2)),
    (f"{LIBRARY}/embedding/interests.py", "\n_MORE = 1\n", {"embed": 1, **runs(3)}),
    (f"{LIBRARY}/recommenders/systems/pad_published.py", "\n_MORE = 1\n", {}),
    (f"{LIBRARY}/objectives/mmd.py", "\n_MORE = 1\n", {**codes(1), **atlas("views"), **runs(4)}),
    (f"{LIBRARY}/quantization/rq_kmeans.py", "\n_MORE = 1\n", {**codes(1), **atlas("plain"), **runs(1)}),
    (f"{LIBRARY}/quantization/health.py", "\n_MORE = 1\n", {"health": 3, "report": 1}),
    (f"{LIBRARY}/embedding/embed.py", "\n_MORE = 1\n", REFINISHED),
    (f"{LIBRARY}/embedding/crrl.py", "\n_MORE = 1\n", {"tune": 1, **REAEMB}),
    (f"{LIBRARY}/embedding/moca.py", "\n_MORE = 1\n", {"tune": 1, **MOCA}),
    (f"{LIBRARY}/embedding/crrl_published.py", "\n_MORE = 1\n", {}),
    (f"{LIBRARY}/embedding/finish.py", "\n_MORE = 1\n", REFINISHED),
    (f"{LIBRARY}/language/pretrain.py", "\n_MORE = 1\n", {"pretrain": 1, **READ}),
    (f"{LIBRARY}/evaluation/representations.py", "\n_MORE = 1\n", {"diagnose": 7, "report": 1}),
    (f"{LIBRARY}/evaluation/atlas.py", "\n_MORE = 1\n", {"atlas": 7, "report": 1}),
    (f"{LIBRARY}/evaluation/shift.py", "\n_MORE = 1\n", SHIFT),
    (f"{LIBRARY}/evaluation/shifted.py", "\n_MORE = 1\n", SHOWN),
    (f"{LIBRARY}/data/prepare.py", "\n_MORE = 1\n", PREPARED),
]


@pytest.mark.parametrize(
    ("path", "more", "expected"), CODE, ids=[f"{path.split('/')[-1]}{more.split()[0]}" for path, more, _ in CODE]
)
def test_code(finished: Project, path: str, more: str, expected: dict[str, int]) -> None:
    with finished.edited(path, lambda text: text + more):
        assert finished.stale() == expected
