"""Every kind of training of the library, small, on any device: a name, and a function that trains it.

The worlds are those of the unit tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import ctr_logs
import ctr_world
import pattern
import test_ctr_models
import test_ctr_training
import test_dual_view
import test_moca
import test_quantizers
import test_tiger
import test_train
import test_train_contrastive
import test_train_crrl
import tiny_mme_sid
import torch
from tiny_language import tiny_model, write_catalogue, write_data
from tiny_vision import tiny_built, write_built, write_pictured
from torch import Tensor

from tessera.artifacts.models import read_tensors, write_model
from tessera.ctr.train import train_model
from tessera.data.dataset import load_dataset
from tessera.embedding.text import embed_text
from tessera.language import pretrain as pretraining
from tessera.quantization import pq, rq_kmeans
from tessera.quantization.base import Quantizer
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.systems.base import recommender
from tessera.recommenders.train import train_run
from tessera.settings.kinds import implementation
from tessera.settings.recipes.lrcl import LRCLTable
from tessera.settings.recipes.text import TextTable
from tessera.settings.runs import Run
from tessera.training.machine import Machine, pick_device, seed_step

MODEL = "model.safetensors"
Result = dict[str, Tensor]
"""What a training wrote, and what was made with it, by name."""


@dataclass(frozen=True)
class Place:
    """How a kind is trained."""

    device: str
    precision: str = "float32"
    drop: bool = False
    """Whether layers drop out."""
    often: bool = False
    """Whether the state is written after every step."""
    steps: int = 24

    @property
    def training(self) -> dict[str, Any]:
        """Settings that all trainings have."""
        seconds = {"checkpoint_seconds": 1e-9 if self.often else 600.0}
        return {"device": self.device, "precision": self.precision, **seconds}


Train = Callable[[Place, Path], Result]
"""Trains in a folder, beside the inputs; in the same folder it goes on."""


def _once(folder: Path, write: Callable[[Path], Any]) -> Path:
    """A folder of inputs, written at the first call: it is the same at every call."""
    if not folder.exists():
        folder.mkdir(parents=True)
        write(folder)
    return folder


# ---------------------------------------------------------------- recommenders

ITEMS: dict[str, dict[str, Any]] = {
    "ids": {"items": "ids"},
    "table": {"items": {"table": "t", "adapter": [32]}},
    "semantic_ids": {"items": {"semantic_ids": "c"}},
    "dual_view": {},
    "pad": {"recommender": "pad", "table": "t", "adapter": [32]},
    "findrec": {"recommender": "findrec", "text": "t", "width": 32, "dropout": 0.0},
    "cider": {"recommender": "cider", "items": {"table": "t", "adapter": [32]}, "damage": {"pattern": "feature"}},
    "markov_mixture": {
        "recommender": "markov_mixture", "base": {"items": {"table": "t", "adapter": [32]}}, "similar": {}
    },
    "tpad": {"recommender": "tpad", "text": "t", "disentangling": {"steps": 20}},
    "i3_mrec": {"recommender": "i3_mrec", "text": "t", "ids": "environment", "adapter": [32], "dropout": 0.0},
    "i3_mrec-gradient": {
        "recommender": "i3_mrec", "text": "t", "ids": "environment", "dropout": 0.0,
        "invariance": {"penalty": "gradient"},
    },
    "dual_view-sequence": {"axis": "sequence"},
}  # fmt: skip
LOSSES = {
    "sampled_softmax": {"kind": "sampled_softmax", "negatives": 20},
    "gbce": {"kind": "gbce", "negatives": 8},
    "bce": {"kind": "bce"},
    "bpr": {"kind": "bpr", "negatives": 4},
}


def _write_codes(folder: Path) -> None:
    torch.manual_seed(0)
    test_ctr_training.write_ids(folder / "codes.parquet", pattern.ITEMS, (7, 8))


def backbone_run(
    items: str, backbone: str, loss: dict[str, Any] | None, place: Place, folder: Path
) -> tuple[Run, RunInputs]:
    """A run of items under a backbone, and its inputs."""
    told = {"epochs": 4, "patience": 100, "validate_every": 4, "learning_rate": 0.01, **place.training}
    if items.startswith("dual_view"):
        run = test_dual_view.run_of(ITEMS[items], backbone, **told)
        found = _once(folder.parent / "views", lambda own: test_dual_view.write_views(own))
        inputs = RunInputs(tables={name: str(found / f"{name}.parquet") for name in test_dual_view.NAMES})
    else:
        run = pattern.make_run(backbone, {**ITEMS[items], **({"loss": loss} if loss else {})}, **told)
        inputs = RunInputs()
        if items in ("table", "pad", "findrec", "cider", "markov_mixture", "tpad") or items.startswith("i3_mrec"):
            own = _once(folder.parent / "table", lambda own: test_train.make_table(own, skip=(7, 8)))
            inputs = RunInputs(tables={"t": str(own / "t.parquet")})
        if items == "semantic_ids":
            inputs = RunInputs(codes=str(_once(folder.parent / "codes", _write_codes) / "codes.parquet"))
    assert run.backbone is not None
    shape = run.backbone.model_copy(update={"dropout": 0.1 if place.drop else 0.0})
    return run.model_copy(update={"backbone": shape}), inputs


def _write_grid(folder: Path) -> None:
    test_tiger.write_ids(folder / "codes.parquet", test_tiger.grid(), (6, 5))
    write_model(folder / "model.safetensors", {}, {})


def tiger_run(scoring: str, place: Place, folder: Path) -> tuple[Run, RunInputs]:
    """A run of TIGER, whose beam holds all items."""
    codes = _once(folder.parent / "codes", _write_grid)
    method = {"dropout": 0.1 if place.drop else 0.0, "scoring": scoring, "beams": pattern.ITEMS}
    told = {"epochs": 6, "patience": 100, "validate_every": 6, **place.training}
    return test_tiger.make_run(method, **told), RunInputs(codes=str(codes / "codes.parquet"))


def mme_sid_run(place: Place, folder: Path) -> tuple[Run, RunInputs]:
    """A run of MME-SID."""
    own = _once(folder.parent / "mme_sid", lambda own: tiny_mme_sid.write_inputs(own))
    inputs = RunInputs(
        tables={name: str(own / f"{name}.parquet") for name in tiny_mme_sid.TABLES},
        codes=str(own / "codes.parquet"), model=str(own / "model"),
    )  # fmt: skip
    told = {"epochs": 5, "patience": 100, "validate_every": 5, **place.training}
    lora = {"rank": 4, "alpha": 8, "dropout": 0.1 if place.drop else 0.0}
    return tiny_mme_sid.make_run(told, lora=lora), inputs


def eimf_run(network: str, place: Place, folder: Path) -> tuple[Run, RunInputs]:
    """A run of EIMF-style learning, and its inputs."""
    told = {"epochs": 4, "patience": 100, "validate_every": 4, "learning_rate": 0.01, **place.training}
    method = {"dim": 16, "max_length": 12, "dropout": 0.1 if place.drop else 0.0, "typical": 9, "network": network}
    run = pattern.make_run(system={"recommender": "eimf", "interests": "w", **method}, **told)
    own = _once(folder.parent / "interests", lambda own: pattern.write_interests_of(own / "w.parquet", range(2, 80, 3)))
    return run, RunInputs(tables={"w": str(own / "w.parquet")})


def graph_run(place: Place, folder: Path) -> tuple[Run, RunInputs]:
    """A run of I3-MRec as a graph, and its inputs."""
    told = {"epochs": 4, "patience": 100, "validate_every": 4, "learning_rate": 0.01, **place.training}
    method = {"text": "t", "image": "t", "dim": 16, "dropout": 0.1 if place.drop else 0.0}
    run = pattern.make_run(system={"recommender": "i3_mrec_graph", **method}, **told)
    own = _once(folder.parent / "table", lambda own: test_train.make_table(own, skip=(7, 8)))
    return run, RunInputs(tables={"t": str(own / "t.parquet")})


def distilled_run(place: Place, folder: Path) -> tuple[Run, RunInputs]:
    """A run that learns from another, and the weights of that one."""
    shape = {"dropout": 0.1 if place.drop else 0.0}
    teacher = {"items": "ids", "backbones": ["gru4rec"]}

    def write(own: Path) -> None:
        # as it begins: its training would be one more here, and what it says is random in either case
        first, counts = pattern.make_run("gru4rec", teacher), load_dataset(dataset(folder)).train_counts
        seed_step(1)
        weights = recommender(first).build(first, RunInputs(), counts).state_dict()
        write_model(own / MODEL, weights, {"run": first.model_dump(mode="json"), "items": len(counts) - 1})

    own = _once(folder.parent / "teacher", write)
    told = {"epochs": 4, "patience": 100, "validate_every": 4, "learning_rate": 0.01, **place.training}
    method = {"recommender": "distilled", "items": "ids", "teacher": "other", "kept": 10}
    run = pattern.make_run(system=method, others={"other": teacher}, **told)
    assert run.backbone is not None
    return run.model_copy(update={"backbone": run.backbone.model_copy(update=shape)}), RunInputs(
        teacher=str(own / MODEL)
    )


Recommender = Callable[[Place, Path], tuple[Run, RunInputs]]

RECOMMENDERS: dict[str, Recommender] = {
    **{
        f"{backbone}/{items}": partial(backbone_run, items, backbone, None)
        for backbone in ("sasrec", "gru4rec", "bert4rec", "mamba", "filter", "hstu", "srgnn")
        for items in ITEMS
        if backbone == "sasrec" or items != "dual_view-sequence"
        if backbone != "bert4rec" or items not in ("findrec", "cider")  # it looks both ways
        if backbone != "srgnn" or items not in ("findrec", "cider")  # it reads a history as a graph
    },
    **{f"sasrec/ids/{name}": partial(backbone_run, "ids", "sasrec", loss) for name, loss in LOSSES.items()},
    **{f"eimf/{network}": partial(eimf_run, network) for network in ("attention", "capsules")},
    "i3_mrec_graph": graph_run,
    "distilled": distilled_run,
    "tiger": partial(tiger_run, "beam"),
    "mme_sid": mme_sid_run,
}  # fmt: skip


def dataset(folder: Path) -> Path:
    """The prepared dataset of recommenders."""
    return _once(folder.parent / "data", lambda own: pattern.write_dataset(own))


def _recommend(make: Recommender, place: Place, folder: Path) -> Result:
    run, inputs = make(place, folder)
    output = folder / MODEL
    train_run(run, dataset(folder), inputs, output, folder / "state")
    return read_tensors(output)


# ---------------------------------------------------------------- recipes of item tables


def _contrastive(recipe: str, place: Place, folder: Path) -> Result:
    data = _once(folder.parent / "data", lambda own: write_data(own))
    steps = {"steps": place.steps, "learning_rate": 5e-3, **place.training}
    table = test_train_contrastive.table(recipe, steps, lora={"dropout": 0.1 if place.drop else 0.0})
    output = test_train_contrastive.train(folder, table, data=data)
    model = tiny_model()
    model.move(torch.device(place.device))
    _, vectors = test_train_contrastive.embed(table, data / "items.parquet", output, model)
    return {**read_tensors(output), "vectors": torch.from_numpy(vectors)}


MOCA: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {
    "moca-continual": ((2, 0), {"shown": "both"}),
    "moca-contrastive": ((0, 2), {"shown": "both", "states": "first_last", "hard_negatives": 1, "temperature": 0.1}),
    "moca-adapters": ((1, 1), {"lora": {"rank": 2}}),
}
"""Halves of the steps in each phase, and settings."""


def _moca(name: str, place: Place, folder: Path) -> Result:
    data = _once(folder.parent / "shop", lambda own: write_pictured(own, 24)) / "data"
    built = _once(folder.parent / "built", lambda own: write_built(own, tiny_built()))
    halves, more = MOCA[name]
    if "lora" in more:
        more = {**more, "lora": {**more["lora"], "dropout": 0.1 if place.drop else 0.0}}
    first, second = (place.steps * count // 2 for count in halves)
    rate = {"learning_rate": 3e-3}
    table = test_moca.table({**rate, **place.training, "steps": second}, {**rate, "steps": first}, **more)
    output = test_moca.train(folder, table, data, test_moca.seeing(built))
    model = test_moca.seeing(built)
    model.move(torch.device(place.device))
    _, vectors = test_moca.embed(folder, table, data, output, model)
    return {**read_tensors(output), "vectors": torch.from_numpy(vectors)}


CRRL: dict[str, dict[str, Any]] = {
    "crrl": {},
    "crrl-token": {"policy": "token", "kl": 0.1},
    "crrl-contrastive": {"objective": "contrastive", "similarity": "cosine"},
}


def _crrl(name: str, place: Place, folder: Path) -> Result:
    data = _once(folder.parent / "data", lambda own: test_train_crrl.write_pairs(own))
    table = test_train_crrl.table({"steps": place.steps, **place.training}, **CRRL[name])
    start = LRCLTable(model="tiny", batch_tokens=400)
    weights = test_train_crrl.train(data, folder, table, start)
    model = tiny_model()
    model.move(torch.device(place.device))
    output, catalogue = folder / "model.safetensors", data / "items.parquet"
    _, vectors = test_train_crrl.embed(table, start, catalogue, output, model)
    return {**weights, "vectors": torch.from_numpy(vectors)}


def export(kind: str, place: Place, folder: Path) -> Result:
    """The table of a model as it is."""
    catalogue = _once(folder.parent / "data", lambda own: write_catalogue(own / "items.parquet", 40)) / "items.parquet"
    model = tiny_model(kind)  # type: ignore[arg-type]
    if place.precision == "bfloat16":
        model.full.to(torch.bfloat16)
    model.move(pick_device(place.device))
    _, vectors = embed_text(TextTable(model="tiny"), test_train_crrl.PROMPT, model, catalogue, {})
    return {"vectors": torch.from_numpy(vectors)}


def _pretrain(place: Place, folder: Path) -> Result:
    data = _once(folder.parent / "world", lambda own: write_pictured(own, 24)) / "data"
    settings = tiny_built(steps=place.steps, **place.training)
    output = folder / "built"
    with mock.patch.multiple(pretraining, DRAWINGS=24, CHECKED=8):
        machine = Machine(settings.training)
        pretraining.pretrain(
            settings, pretraining.ItemPrompt(domain="lamp"), "bazaar", data, output, folder / "state", machine
        )
    return read_tensors(output / "model.safetensors")


# ---------------------------------------------------------------- quantisers

LEARNED = [kind for kind in test_quantizers.KINDS if "rq_vae" in kind]
CLUSTERED = [kind for kind in test_quantizers.KINDS if "rq_vae" not in kind]


def quantize(kind: str, place: Place, folder: Path) -> Result:
    """Codebooks, codes and reconstructions."""
    more: dict[str, Any] = {}
    if kind in LEARNED:
        more = {"training": {**test_quantizers.TRAINING, "steps": place.steps, **place.training}, "revive_after": 4}
    settings = test_quantizers.settings_of(kind, **more)
    data = [
        test_quantizers.part(name, number, test_quantizers.DIM + 3 * number)
        for number, name in enumerate(settings.tables)
    ]
    module = implementation(settings)
    (folder / "state").mkdir(exist_ok=True)
    # k-means takes the GPU wherever there is one
    chosen = {"side_effect": lambda _: pick_device(place.device)}
    with mock.patch.object(pq, "pick_device", **chosen), mock.patch.object(rq_kmeans, "pick_device", **chosen):
        fitted = module.fit(settings, data, folder / "state")
    quantizer = Quantizer(settings, fitted.parts)
    vectors = [own.vectors for own in data]
    codes = quantizer.assign(vectors)
    found = {name: tensor.detach() for name, tensor in quantizer.tensors().items()}
    for number, (own, made) in enumerate(zip(codes, quantizer.decode(codes), strict=True)):
        found |= {f"codes.{number}": torch.from_numpy(own), f"made.{number}": torch.from_numpy(made)}
    return found


# ---------------------------------------------------------------- click-through models

CLICKS: dict[str, dict[str, Any]] = {
    "avg": {"model": "avg", "read_codes": True},
    "avg-counts": {"model": "avg", "counts": True},
    "sim_hard": {"model": "sim_hard", "k": 5},
    "din": {"model": "din"},
    "sim_soft": {"model": "sim_soft", "k": 5},
    "eta": {"model": "eta", "k": 5},
    "sdim": {"model": "sdim", "bits": 24},
    "twin": {"model": "twin", "k": 5},
    "mirrn": {"model": "mirrn", "k": 5, "short": 0},
    "mirrn-scan": {"model": "mirrn", "k": 6, "index": False},
    "r2led": {"model": "r2led", "k": 6},
    "r2led-mean": {"model": "r2led", "k": 6, "routes": ["levels", "target", "global"], "fusion": "mean"},
    "r2led-collaborative": {"model": "r2led", "k": 6, "views": "collaborative", "gate": "concat"},
    "r2led-fuse": {"model": "r2led", "k": 6, "mixing": "fuse", "alpha": 0.3},
    "r2led-counts": {"model": "r2led", "k": 6, "counts": True, "histogram": False},
    "lemur": {"model": "lemur", **ctr_world.ENCODED},
    "lemur-end-to-end": {"model": "lemur", **ctr_world.ENCODED, "regime": "end_to_end"},
    "lemur-frozen": {"model": "lemur", **ctr_world.ENCODED, "regime": "frozen"},
}


def _write_samples(folder: Path) -> None:
    test_ctr_training.make(folder, ctr_logs.random_rows(users=30, length=60, ties=False))
    torch.manual_seed(0)
    test_ctr_training.write_ids(folder / "codes.parquet", 30, (7, 8))
    ctr_world.write_content(folder / "shop", 30)


def samples(folder: Path) -> tuple[Path, Path]:
    """The samples of click-through models, and codes."""
    own = _once(folder.parent / "clicks", _write_samples)
    return own / "samples", own / "codes.parquet"


def content(folder: Path) -> Path:
    """Texts and pictures of their items."""
    return _once(folder.parent / "clicks", _write_samples) / "shop/content"


def click_run(keys: dict[str, Any], place: Place) -> Any:
    """A run of a click-through model."""
    return ctr_logs.make_run(training=place.training, **{**keys, "dropout": 0.1 if place.drop else 0.0})


def _click(keys: dict[str, Any], place: Place, folder: Path) -> Result:
    data, codes = samples(folder)
    output = folder / "model.safetensors"
    train_model(click_run(keys, place), data, codes, output, folder / "state", content=content(folder))
    return read_tensors(output)


# ---------------------------------------------------------------- all of them

TRAINED: dict[str, Train] = {
    **{name: partial(_recommend, make) for name, make in RECOMMENDERS.items()},
    "scft": partial(_contrastive, "scft"),
    "lrcl": partial(_contrastive, "lrcl"),
    "pairs": partial(_contrastive, "pairs"),
    **{name: partial(_crrl, name) for name in CRRL},
    **{name: partial(_moca, name) for name in MOCA},
    "pretraining": _pretrain,
    **{f"quantizer/{kind.replace(' ', '-')}": partial(quantize, kind) for kind in LEARNED},
    **{f"clicks/{name}": partial(_click, keys) for name, keys in CLICKS.items()},
}
"""Kinds that are trained step by step."""

MADE: dict[str, Train] = {
    **{f"quantizer/{kind.replace(' ', '-')}": partial(quantize, kind) for kind in CLUSTERED},
    "text/decoder": partial(export, "decoder"),
    "text/encoder": partial(export, "encoder"),
}
"""Kinds that are made at once."""

assert {keys["model"] for keys in CLICKS.values()} == {keys["model"] for keys in test_ctr_models.KINDS}
