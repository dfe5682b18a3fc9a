"""Keys that nothing reads beside the others are refused, with the reason: they would do nothing, without a word."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tessera.settings.base import ConfigError, Settings
from tessera.settings.config import load
from tessera.settings.unread import unread_keys

TABLES = {
    "text": {"recipe": "text", "model": "small"},
    "image": {"recipe": "hidden", "model": "small", "source": "image"},
    "written": {"recipe": "interests", "model": "small"},
    "pieces": {"recipe": "attributes", "model": "small"},
}
FINDREC, PAD = {"recommender": "findrec", "text": "text"}, {"recommender": "pad", "table": "text"}
EIMF: dict[str, Any] = {"recommender": "eimf"}
TPAD = {"recommender": "tpad", "text": "text"}
I3, GRAPH = {"recommender": "i3_mrec", "text": "text"}, {"recommender": "i3_mrec_graph", "text": "text"}
WEIGHTS = ("recommendation", "representation", "attention", "reconstruction", "scores")
CIDER = {"recommender": "cider", "items": {"table": "text"}}


def config(system: dict[str, Any]) -> dict[str, Any]:
    experiment = {"datasets": ["shop"], "systems": ["mine"], "backbones": ["sasrec"], "seeds": [1]}
    return {
        "datasets": {"shop": {"source": "bazaar"}}, "tables": TABLES, "systems": {"mine": system},
        "experiment": experiment,
    }  # fmt: skip


def views(**keys: Any) -> dict[str, Any]:
    return {"items": {"kind": "dual_view", **keys}}


def check_refused(made: dict[str, Any], section: str, told: list[str]) -> None:
    """One line for each key of `mine` that is said in vain, each with this beginning."""
    with pytest.raises(ConfigError) as refused:
        load(made, "mine.yaml")
    lines = str(refused.value).splitlines()
    assert len(lines) == len(told)
    for line, beginning in zip(lines, told, strict=True):
        assert line.startswith(f"mine.yaml: {section}.mine.{beginning}")
        assert "; leave it out (got " in line


@pytest.mark.parametrize(
    ("system", "told"),
    [
        (CIDER | {"counterfactual": {"tau": 0.3, "grid": [0.1]}}, ["counterfactual.grid: is what tau is chosen from"]),
        (
            CIDER | {"counterfactual": {"keep": "last", "most": 5, "bins": 4}},
            ["counterfactual.most: is of shortcuts", "counterfactual.bins: is of shortcuts"],
        ),
        (CIDER | {"popularity": {"bins": 5}}, ["popularity.bins: is of adjustment bins, and logit has none"]),
        (CIDER | {"damage": {"rate": 0.5, "concentration": 2.0}}, ["damage.concentration: is of rates that are drawn"]),
        (
            CIDER | {"distillation": {"scores": 0.0, "temperature": 1.0}},
            ["distillation.temperature: is of scores that are compared, whose weight is 0"],
        ),
        (
            FINDREC | {"alignment": {"estimator": "mmd", "score": {"hidden": 8}}},
            ["alignment.score: is of estimator ksd, and mmd fits none"],
        ),
        (PAD | {"align": {"temperature": 0.2}}, ["align.temperature: is of kernel infonce, and gaussian_multi has"]),
        (PAD | {"align": {"kernel": "none", "weight": 0.2}}, ["align.weight: is of an alignment"]),
        (PAD | {"gate": "global", "bins": 20}, ["bins: is of gate bins, and gate global has none"]),
        (PAD | {"projector": "deep_gelu", "adapter": [32]}, ["adapter: is of projector adapter, and deep_gelu has"]),
        (PAD | {"align": {"anchor": False, "patience": 3}}, ["align.patience: is of validations, and there are none"]),
        (PAD | {"align": None, "members": "slots"}, ["members: says whose vectors are aligned, and none are"]),
        (
            PAD | {"experts": ["id"], "adapter": [32], "align": {"weight": 0.1}, "fusion": "add"},
            [
                "align: is of the aligned tower, which experts does not name",
                "fusion: is of the aligned tower, which experts does not name",
                "adapter: is of towers that read the table, and experts names none",
            ],
        ),
        (PAD | {"experts": ["text"], "pretrain": {"epochs": 5}}, ["pretrain: is of the ID tower, from which no tower"]),
        (
            FINDREC | {"gate": "mean", "temperature": 0.5, "balance": 0.1},
            ["temperature: is of gate context", "balance: is of gate context, and gate mean weighs all experts alike"],
        ),
        (FINDREC | {"experts": 1, "balance": 0.1}, ["balance: keeps several experts in use, and experts: 1 has one"]),
        (
            CIDER | {"distillation": dict.fromkeys(WEIGHTS, 0.0), "damage": {"rate": 0.5}},
            ["damage: is of the damaged pass, and the weights of distillation are all 0"],
        ),
        (
            CIDER | {"distillation": {"recommendation": 0.0, "scores": 0.0}, "damage": {"candidates": 0.5}},
            ["damage.candidates: is of items that the damaged pass scores"],
        ),
        (CIDER | {"counterfactual": {"tau": 0.0, "most": 5}}, ["counterfactual.most: is of what is taken off"]),
        (
            I3 | {"keep": {"weight": 0.1}, "pairs": "seven_sixths", "compress": None, "fitted_on": "projections"},
            [
                "keep: is of several environments, and a single table is one",
                "pairs: is of several environments, and a single table is one",
                "fitted_on: is of `compress`, which is null",
            ],
        ),
        (
            GRAPH | {"regularization": 0.0, "regularize": "first"},
            ["regularize: says whose lengths are kept small, and regularization is 0"],
        ),
        (TPAD | {"features": "knowledge", "disentangling": {"steps": 9}}, ["disentangling: is of features: distilled"]),
        ({"items": "ids", "temperature": 0.1}, ["temperature: is read with `scores: cosine` alone"]),
        ({"items": {"table": "text", "adapter": [], "dropout": 0.2}}, ["items.dropout: is of hidden layers of the"]),
        (
            views(text="text", fine="pieces", fusion="concat", heads=4),
            ["items.heads: is of cross-attention, and fusion: concat has none"],
        ),
        (
            EIMF | {"network": "capsules", "inner_dim": 32, "readout": "none"},
            [
                "inner_dim: is of network attention, and the network is capsules",
                "readout: is of network attention, and the network is capsules",
            ],
        ),
        (EIMF | {"vectors": 1, "loss_over": "nearest"}, ["loss_over: says which of several vectors learns"]),
        (EIMF | {"iterations": 5, "network": "attention"}, ["iterations: is of network capsules"]),
        (
            TPAD | {"disentangling": {"lower": 0.0, "temperature": 0.2, "upper": 0.0, "estimator": {"hidden": 8}}},
            [
                "disentangling.temperature: is of the lower bound, whose weight is 0",
                "disentangling.estimator: is of the upper bounds, whose weight is 0",
            ],
        ),
        (EIMF | {"iterations": 5}, ["iterations: is of network capsules, and the network is attention"]),
        (
            EIMF | {"prediction": {"weight": 0.2}, "typical": 8, "matching": None},
            [
                "prediction: is of written interests, and interests names no table",
                "typical: is of written interests, and interests names no table",
            ],
        ),
        (
            views(text="text", alignment={"weight": 0.2}, heads=4),
            [
                "items.alignment: brings `image` and `text` together, and one of them names no table",
                "items.heads: says how two views read each other, and tables give one",
            ],
        ),
    ],
)  # fmt: skip
def test_what_would_do_nothing_is_refused(system: dict[str, Any], told: list[str]) -> None:
    check_refused(config(system), "systems", told)


@pytest.mark.parametrize(
    "system",
    [
        CIDER | {"counterfactual": {"keep": "last", "tau": 0.3}, "popularity": {"adjustment": "bins", "bins": 5}},
        CIDER
        | {"counterfactual": {"grid": [0.1], "most": 5}, "damage": {"rate": 0.5}, "distillation": {"scores": 0.0}},
        FINDREC | {"alignment": {"estimator": "mmd"}},
        PAD | {"align": {"kernel": "infonce", "temperature": 0.2}},
        PAD | {"align": {"kernel": "none"}, "preset": "official"},
        # the preset's projector is nobody's choice
        PAD | {"preset": "official", "adapter": [32]},
        PAD | {"preset": "official", "experts": ["id"]},
        PAD | {"experts": ["text"], "pretrain": None, "align": None},
        PAD | {"gate": "global", "bins": 10},
        GRAPH | {"preset": "official", "compress": None, "regularization": 0.0},
        TPAD | {"disentangling": {"temperature": 0.2, "upper": 0.0}},
        EIMF | {"network": "capsules", "iterations": 5},
        EIMF | {"interests": "written", "typical": 8},
        # what is the default does nothing in vain
        EIMF | {"iterations": 3, "typical": 64, "adapter": [256], "prediction": {"weight": 0.1}},
        EIMF | {"prediction": None},
        views(text="text"),
        views(text="text", image="image", alignment={"weight": 0.2}),
    ],
)
def test_what_is_read_is_taken(system: dict[str, Any]) -> None:
    load(config(system), "mine.yaml")


def table(**keys: Any) -> dict[str, Any]:
    return config({"items": {"table": "mine"}}) | {"tables": TABLES | {"lrcl": LRCL, "mine": {"model": "small"} | keys}}


def codes(**keys: Any) -> dict[str, Any]:
    mine = {"tables": "text"} | keys
    return config({"items": {"semantic_ids": "mine"}}) | {"semantic_ids": {"mine": mine}}


LRCL = {"recipe": "lrcl", "model": "small"}
CRRL = {"recipe": "crrl", "start": "lrcl", "model": None}
MOCA, BOTH = {"recipe": "moca"}, {"recipe": "moca", "shown": "both"}
VIEWS = {"quantizer": "mm_rq_vae", "tables": ["text", "image"]}


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (codes(quantizer="rq_vae", gumbel_temperature=0.5), ["gumbel_temperature: is of estimator gumbel"]),
        (codes(quantizer="rq_vae", estimator="rotation", ema_decay=0.9), ["ema_decay: is of codebook ema"]),
        (
            codes(quantizer="rq_vae", commitment=0.0, residual_gradient="straight_through"),
            ["residual_gradient: says how far commitments reach"],
        ),
        (codes(quantizer="mm_rq_vae", align_weight=0.1), ["align_weight: is of several tables"]),
        (codes(**VIEWS, align="none", align_weight=0.1), ["align_weight: is of an alignment, and align: none"]),
        (codes(**VIEWS, align_weight=0.0, align="mmd"), ["align: is of an alignment, whose align_weight is 0"]),
        (
            codes(**VIEWS, align="mmd", align_direction="first", align_temperature=0.5),
            ["align_direction: is of align: infonce", "align_temperature: is of align: infonce"],
        ),
        (codes(**VIEWS, rec=0.0, mse=2.0), ["mse: is of reconstructions, whose weight rec is 0"]),
        (
            table(recipe="lrcl", thoughts=0, last_tokens=8, positions="padded", two_pass=True),
            ["last_tokens: is of thoughts", "positions: is of thoughts", "two_pass: is of thoughts"],
        ),
        (
            table(recipe="scft", loss={"target_temperature": "multiply"}),
            ["loss.target_temperature: is of soft targets, and targets: identity has none"],
        ),
        (
            table(**CRRL, log_probability="unshifted", reference="live"),
            ["log_probability: is of policy token", "reference: is what the policy diverges from, and kl is 0"],
        ),
        (
            table(**MOCA, max_pixels=4096, continual={"mask_picture": 0.2}),
            ["max_pixels: is of pictures", "continual.mask_picture: is of pictures, and shown: text reads none"],
        ),
        (
            table(**MOCA, shown="image", max_tokens=32, continual={"mask_text": 0.2}),
            ["max_tokens: is of texts", "continual.mask_text: is of texts, and shown: image reads none"],
        ),
        (
            table(**BOTH, continual={"mask_picture": 0.0, "picture_weight": 0.5}),
            ["continual.picture_weight: is of pictures that are given back, and mask_picture: 0 gives none"],
        ),
        (
            table(**BOTH, continual={"mask_picture": 0.2, "picture_weight": 0.0}),
            ["continual.mask_picture: is of pictures that are given back, whose picture_weight is 0"],
        ),
        (table(**MOCA, pairs={"views": 1, "together": 0, "window": 3}), ["pairs.window: is of items of one history"]),
        (
            table(**MOCA, continual={"steps": 0, "budget": 4096, "learning_rate": 1.0e-3}),
            ["continual.learning_rate: is of the first phase, which steps: 0", "continual.budget: is of the first"],
        ),
        (
            table(**MOCA, training={"steps": 0, "learning_rate": 1.0e-3}, drop=0.2, pairs={"views": 1}),
            [
                "pairs: is of the second phase, which training.steps: 0 leaves out",
                "drop: is of the second phase, which training.steps: 0 leaves out",
                "training.learning_rate: is of the second phase, which training.steps: 0 leaves out",
            ],
        ),
        (
            table(**CRRL, objective="contrastive", policy="vector", reward="ndcg", clip_low=0.1, group=4),
            [
                "policy: is of objective: policy, and the objective is contrastive",
                "group: is of objective: policy, and the objective is contrastive",
                "reward: is of objective: policy, and the objective is contrastive",
                "clip_low: is of objective: policy, and the objective is contrastive",
            ],
        ),
        (table(**CRRL, learns="both", cache_gib=1.0), ["cache_gib: is of constants of a frozen model"]),
        (table(recipe="hidden", source="text", max_pixels=4096), ["max_pixels: is of pictures, and source: text"]),
        (codes(quantizer="rq_vae", start="random", seed=4), ["seed: is read with `start: kmeans` alone"]),
    ],
)  # fmt: skip
def test_what_codes_and_tables_would_not_read_is_refused(made: dict[str, Any], told: list[str]) -> None:
    check_refused(made, "semantic_ids" if "semantic_ids" in made else "tables", told)


CHAT = {"recommender": "mme_sid", "semantic_ids": "mine", "model": "small"}


@pytest.mark.parametrize(
    ("system", "told"),
    [
        (CHAT | {"gate": False, "gate_temperature": 0.5}, ["gate_temperature: is of a mixture, and gate: false adds"]),
        (CHAT | {"scoring": "id", "scale_scores": False}, ["scale_scores: is of heads of raw tables, and scoring: id"]),
        (CHAT | {"raw": False, "scoring": "id"}, ["scoring: is of heads of raw tables, and raw: false reads none"]),
        (CHAT | {"codes": False, "start": "random"}, ["start: is of vectors of codes, and codes: false reads none"]),
        (CHAT | {"lora": None, "adapt": "feed_forward"}, ["adapt: is of adapters, and lora: null has none"]),
        (CHAT | {"prompt": "short", "system_message": "Hi"}, ["system_message: is of a chat, and prompt: short is"]),
        (
            {"recommender": "tiger", "semantic_ids": "mine", "scoring": "exact", "beams": 9},
            ["beams: is of scoring beam, and exact scores every item"],
        ),
    ],
)
def test_systems_over_codes(system: dict[str, Any], told: list[str]) -> None:
    made = codes(quantizer="mm_rq_vae") | {"systems": {"mine": system}}
    del made["experiment"]["backbones"]
    check_refused(made, "systems", told)
    load(made | {"systems": {"mine": CHAT | {"preset": "official", "codes": False, "scoring": "id", "lora": None}}})


@pytest.mark.parametrize(
    ("section", "keys", "told"),
    [
        ("backbones", {"kind": "filter", "share": 0.0, "span": 8.0}, "span: is of the filter, whose share is 0"),
        (
            "backbones",
            {"kind": "bert4rec", "last_only_probability": 1.0, "mask_probability": 0.5},
            "mask_probability: is of the Cloze task",
        ),
        ("captions", {"model": "small", "source": "text", "max_pixels": 4096}, "max_pixels: is of pictures"),
        ("datasets", {"source": "bazaar", "lifelong": {}, "drift": 0.1}, "drift: is of a world without `lifelong`"),
        (
            "datasets",
            {"source": "bazaar", "split": {"kind": "global_temporal", "seed": 3}},
            "split.seed: is of target: random, and first draws none",
        ),
    ],
)
def test_other_sections(section: str, keys: dict[str, Any], told: str) -> None:
    made = config({"items": "ids"})
    made[section] = made.get(section, {}) | {"mine": keys}
    check_refused(made, section, [told])


def test_what_another_row_says_and_reads_may_stand_and_what_none_reads_may_not() -> None:
    """`{<<: *row, gate: global}` has all that the row says."""
    row = PAD | {"bins": 20}
    made = config(row) | {"systems": {"mine": row, "other": row | {"gate": "global"}}}
    load(made, "mine.yaml")
    for systems in (
        {"mine": row | {"gate": "uniform"}, "other": row | {"gate": "global"}},  # no row reads it
        {"mine": row | {"gate": "global", "bins": 30}, "other": row},  # a value of its own
    ):
        with pytest.raises(ConfigError, match=r"systems\.mine\.bins: is of gate bins.*; leave it out \(got [23]0\)"):
            load(made | {"systems": systems}, "mine.yaml")


class Slip(Settings):
    bins: int = 3
    within: Settings | None = None
    wrong: str = "bin"

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        yield "is of something else", (self.wrong,)


def test_a_key_that_settings_declare_and_do_not_have_is_told() -> None:
    with pytest.raises(ConfigError, match=r":Slip: unread: 'bin' is no key of it; did you mean 'bins'\?"):
        list(unread_keys(Slip()))
    assert list(unread_keys(Slip(wrong="within.most"))) == [], "of a section that is null"
    assert [key.path for key in unread_keys({"row": Slip(wrong="bins", bins=4)}) if key.said] == ["row.bins"]


def test_rows_whose_names_hold_dots() -> None:
    row = PAD | {"bins": 20}
    made = config(row) | {"systems": {"mine": row, "v1.2": row | {"gate": "global"}}}
    load(made, "mine.yaml")


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"attempts": 2, "max_new_tokens": 64}, ["attempts: is of a writer", "max_new_tokens: is of a writer"]),
        ({"choose": "random", "clusters": 4}, ["clusters: is of choose: clusters, and random has none"]),
        ({"choose": "random", "seed": 4}, []),
        ({"writer": "small", "attempts": 2}, []),
    ],
)
def test_interests_without_a_writer_or_clusters(keys: dict[str, Any], told: list[str]) -> None:
    made = config({"recommender": "eimf", "interests": "mine"})
    made["tables"] = TABLES | {"mine": {"recipe": "interests", "model": "small"} | keys}
    del made["experiment"]["backbones"]
    if not told:
        load(made, "mine.yaml")
        return
    check_refused(made, "tables", told)


@pytest.mark.parametrize(
    "made",
    [
        codes(quantizer="rq_vae", estimator="gumbel", gumbel_temperature=0.5, commitment=0.0),
        codes(quantizer="rq_vae", codebook="ema", ema_decay=0.9, residual_gradient="straight_through"),
        codes(**VIEWS, align_temperature=0.5, align_direction="first"),
        codes(**VIEWS, align="mmd", align_weight=0.1),
        # what the preset says is nobody's slip
        codes(**VIEWS, preset="official", align="mmd"),
        codes(**VIEWS, preset="official", align="none", rec=0.0),
        codes(quantizer="mm_rq_vae", preset="official"),
        table(recipe="lrcl", preset="official", thoughts=0),
        table(recipe="scft", preset="official", loss={"targets": "identity"}),
        table(recipe="scft", loss={"targets": "detached", "target_temperature": "multiply"}),
        table(**CRRL, policy="token", log_probability="unshifted", kl=0.1, reference="live"),
        table(**CRRL, preset="official", policy="gaussian"),
        table(**CRRL, preset="official", objective="contrastive"),
        # batch and gradient_clip of the second phase are its own defaults, which stay where a key is given
        table(**MOCA, training={"steps": 0, "seed": 3, "precision": "bfloat16"}),
        table(**MOCA, continual={"steps": 0}, training={"steps": 0}),
        table(**BOTH, max_pixels=4096, continual={"mask_picture": 0.2, "picture_weight": 0.3, "mask_text": 0.1}),
    ],
)
def test_what_codes_and_tables_read_is_taken(made: dict[str, Any]) -> None:
    load(made, "mine.yaml")


@pytest.mark.parametrize("reader", ["items", "clicks"])
def test_code_vectors_that_codebooks_give_take_no_width_and_given_codes_no_start(reader: str, tmp_path: Path) -> None:
    (tmp_path / "codes.json").write_text('{"b1": [1, 2]}')
    given = {"quantizer": "given", "path": str(tmp_path / "codes.json")}
    kmeans = {"quantizer": "rq_kmeans", "tables": "text"}

    def read(ids: dict[str, Any], **keys: Any) -> list[str]:
        made = config({"items": {"semantic_ids": "mine"} | keys}) | {"semantic_ids": {"mine": ids}}
        if reader == "clicks":
            model = {"model": "avg", "read_codes": True} | keys
            made |= {"task": "ctr", "ctr": {"semantic_ids": "mine", "models": {"mine": model}}}
            made["ctr"]["samples"] = {"source": "positives"}
            del made["systems"]
            made["experiment"] = {"datasets": ["shop"], "seeds": [1]}
        try:
            load(made, "mine.yaml")
        except ConfigError as error:
            return str(error).splitlines()
        return []

    place = {"items": "systems.mine.items", "clicks": "ctr.models.mine"}[reader]
    assert read(kmeans) == read(given) == read(given, code_dim=8) == read(kmeans, start="random") == []
    assert read(kmeans, code_dim=8) == [
        f"mine.yaml: {place}.code_dim: the codebooks of these codes say how wide their vectors are; leave it out"
    ]
    assert read(given, start="codebooks") == [
        f"mine.yaml: {place}.start: given codes have no codebooks: their vectors start at random; leave it out"
    ]
    # click models alone give vectors that start at random a width of their own
    assert bool(read(kmeans, start="random", code_dim=8)) == (reader == "items")


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ({"iterations": [2, 5]}, "space.systems.mine.iterations: 2: iterations: is of network capsules"),
        ({"iterations": [2, 5], "network": ["attention", "capsules"]}, ""),
        # what the config says beside a searched key is read by some trials
        ({"network": ["attention", "capsules"]}, ""),
    ],
)
def test_a_search_holds_what_some_trial_reads(space: dict[str, Any], told: str) -> None:
    system = EIMF | ({} if told else {"inner_dim": 32})
    searched = {"trials": 4, "space": {f"systems.mine.{key}": {"choices": values} for key, values in space.items()}}
    if not told:
        load(config(system) | {"search": searched}, "mine.yaml")
        return
    with pytest.raises(ConfigError) as refused:
        load(config(EIMF) | {"search": searched}, "mine.yaml")
    assert str(refused.value).startswith(f"mine.yaml: search.{told}")
