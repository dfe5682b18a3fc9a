"""The rows of `gpu.py`: what is measured, in the order of its worth, each beside its plain form.

A row is a function that a worker calls when its turn has come; it builds what it needs, measures, and says what it
found. Sizes are those of the full program on CUDA and a tenth of them or less on a CPU, so that every row is tested.
What one section alone needs is imported where it is used: the first row does not wait for the last.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import TypeAdapter
from torch import Tensor

import device_timing as timing
from tessera.data.dataset import Cases
from tessera.data.padding import padded
from tessera.evaluation.histories import Histories, slices
from tessera.evaluation.judge import evaluation_table, rank_cases, summarize
from tessera.objectives.catalogue import CatalogueLoss, catalogue_loss
from tessera.recommenders.backbones.sasrec import SASRec
from tessera.recommenders.item_encoders.ids import IdItemEncoder
from tessera.recommenders.systems.backbone import SequentialRecommender
from tessera.recommenders.systems.base import TrainedScorer, as_scorer
from tessera.settings.backbones.sasrec import SASRecSettings
from tessera.settings.evaluation import Evaluation
from tessera.settings.losses.base import Loss
from tessera.settings.training import Training
from tessera.training.batches import WindowBatches
from tessera.training.engine import Engine
from tessera.training.losses import total
from tessera.training.machine import Machine
from tessera.training.phases import Epochs, Optimizer, Phase, Position, Update

SECTIONS = {
    "training": 0.40, "evaluation": 0.06, "language": 0.26, "decoding": 0.09, "RQ-VAE": 0.05, "MME-SID": 0.06,
    "R2LED": 0.08,
}  # fmt: skip
"""The share of the time that each section may take; what one leaves, the next may use."""


@dataclass
class Found:
    """What a row found."""

    rate: float
    """Units a second."""
    seconds: float
    """A step."""
    bare: float | None = None
    """Seconds of a bare step: forward, backward, clip, update of batches that lie on the device."""
    kernels: float | None = None
    """Seconds of a step that the device works."""
    flops: float | None = None
    """Operations of a step, where the share of the card's peak is told."""
    note: str = ""
    top: list[tuple[str, float]] = field(default_factory=list)
    """The largest kernels with their seconds a step."""


@dataclass
class Place:
    """Where rows are measured."""

    device: torch.device
    tiny: bool
    most: float
    """Seconds that are measured, after the warm-up, of each form of a step."""
    profile: bool

    def tenth(self, number: int) -> int:
        """The number, or a tenth of it."""
        return max(1, number // 10) if self.tiny else number

    def kernels(self, step: timing.Step, seconds: float) -> tuple[float | None, list[tuple[str, float]]]:
        """Seconds of kernels of a step; nothing where steps are slow, or where the card's profiler does not answer."""
        if not self.profile or seconds > 1:
            return None, []
        try:
            return timing.kernel_seconds(step, self.device) or (None, [])
        except Exception as error:
            print(f"no profile: {error!r}", flush=True)
            self.profile = False
            return None, []

    def measure(self, step: timing.Step, units: float, note: str = "", count_flops: bool = False) -> Found:
        """Time a step that makes so many units."""
        found = timing.timed(step, self.device, self.most)
        kernels, top = self.kernels(step, found.seconds)
        operations = timing.flops(step) if count_flops and found.seconds < 3 else None
        return Found(units / found.seconds, found.seconds, None, kernels, operations, note, top)


@dataclass
class Row:
    """One row, before it is measured."""

    section: str
    case: str
    side: str
    unit: str
    run: Callable[[Place], Found]
    plain: bool = False
    """The plain form, which others of the case are compared with."""
    deterministic: bool = False
    """Torch's deterministic algorithms, as the library sets them when it trains on CUDA."""
    cost: float = 3.0
    """Seconds that it may well take on CUDA: it is not begun with less left."""
    limit: float = 30.0
    """Seconds after which it is given up."""


# ---------------------------------------------------------------- training and evaluation of SASRec

USERS = 6040


@cache
def histories(users: int, items: int) -> tuple[np.ndarray, np.ndarray]:
    """Offsets and items of histories as long as those of ML-1M (20 to 2,314 events, 166 on average); Zipf's law."""
    rng = np.random.default_rng(0)
    lengths = np.clip(np.exp(rng.normal(4.57, 0.98, users)), 20, 2314).astype(np.int64)
    chances = 1 / (np.arange(items) + 30.0)
    drawn = np.searchsorted(np.cumsum(chances / chances.sum()), rng.random(int(lengths.sum())))
    names = rng.permutation(items) + 1
    flat = names[np.minimum(drawn, items - 1)].astype(np.int32)
    return np.concatenate([[0], np.cumsum(lengths)]), flat


def plain_cross_entropy(states: Tensor, vectors: Tensor, targets: Tensor, owners: Tensor, seen: Tensor) -> Tensor:
    """All scores at once, as it is usually written."""
    return F.cross_entropy(states @ vectors[1:].T, targets - 1, reduction="sum")


LOSSES: dict[str, dict[str, Any] | None] = {
    "cross-entropy, all scores at once": None,
    "cross_entropy": {"kind": "cross_entropy"},
    "sampled_softmax": {"kind": "sampled_softmax"},
    "gbce": {"kind": "gbce"},
    "gbce, shared": {"kind": "gbce", "shared": True},
    "bce": {"kind": "bce"},
    "bpr": {"kind": "bpr"},
}
PLAIN = next(iter(LOSSES))


def sasrec(items: int, length: int, loss: str, popularity: np.ndarray, device: torch.device) -> SequentialRecommender:
    """SASRec of width 64 over trainable vectors, made where it stays."""
    chosen = LOSSES[loss]
    ranking: CatalogueLoss = plain_cross_entropy
    if chosen is not None:
        ranking = catalogue_loss(TypeAdapter(Loss).validate_python(chosen), torch.from_numpy(popularity))
    torch.manual_seed(0)
    with torch.device(device):
        return SequentialRecommender(IdItemEncoder(items, 64), SASRec(SASRecSettings(max_length=length)), ranking)


@contextlib.contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """Float32 products by TF32 (`high`) or in full (`highest`)."""
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


def train(
    place: Place, items: int, length: int, tokens: int, loss: str, precision: str, deterministic: bool,
    compiled: str = "", tf32: bool = False,
) -> Found:  # fmt: skip
    """Steps of the library's engine, and bare steps of the same model on batches that lie on the device."""
    items, tokens = place.tenth(items), place.tenth(place.tenth(tokens))
    offsets, flat = histories(place.tenth(USERS), items)
    popularity = np.bincount(flat, minlength=items + 1)
    model = sasrec(items, length, loss, popularity, place.device)
    batches = WindowBatches(offsets, flat, length + 1, 1, tokens)
    settings = Training(device=place.device.type, precision=precision, batch_tokens=tokens, checkpoint_seconds=1e9)  # type: ignore[arg-type]
    machine = Machine(settings)
    if place.device.type == "cuda":
        torch.use_deterministic_algorithms(deterministic)
    start = Position(0, 0, 0, 0.0, {})

    def updates(batch: Histories, at: Position) -> Iterator[Update]:
        yield Update(lambda: forward(batch.to(place.device), at))

    phase = Phase(updates, Epochs(1), {"model": Optimizer(settings)}, batches, modules=[model])
    with tempfile.TemporaryDirectory() as folder, matmul_precision("high" if tf32 else "highest"):
        engine = Engine(model, [phase], settings, 1, Path(folder), machine)
        forward = model.losses
        if compiled == "backbone":
            model.backbone.hidden = torch.compile(model.backbone.hidden, dynamic=True)  # type: ignore[method-assign]
        elif compiled == "forward":
            forward = torch.compile(model.losses, dynamic=True)
        engine._begin(phase)
        plan = batches.plan(1, 0)
        seconds, rate, steps = _through_engine(engine, phase, plan, place)
        given = [batches.batch(numbers).to(place.device) for numbers in plan[:4]]
        targets = sum(int((batch.items[:, 1:] > 0).sum()) for batch in given) / len(given)
        turn = iter(range(10**9))
        # without the engine's reading of the loss, which waits for the device
        bare = partial(_bare_step, engine, lambda batch: forward(batch, start), given, turn)
        alone = timing.timed(bare, place.device, place.most) if seconds < timing.SLOW else None
        kernels, top = place.kernels(bare, alone.seconds) if alone else (None, [])
    note = f"{steps} steps of {targets:,.0f} targets"
    if alone is not None:
        note += f"; bare {targets / alone.seconds:,.0f} targets/s"
    return Found(rate, seconds, alone.seconds if alone else None, kernels, None, note, top)


def _through_engine(engine: Engine, phase: Phase, plan: list[np.ndarray], place: Place) -> tuple[float, float, int]:
    """Seconds a step, targets a second and steps of the engine, after a warm-up of up to four."""
    assert phase.batches is not None
    started, number = time.perf_counter(), 0

    def step() -> None:
        nonlocal number
        engine._step(phase, phase.batches.batch(plan[number % len(plan)]), len(plan))
        number += 1

    while number < 4 and (number == 0 or time.perf_counter() - started < 2 * place.most):
        step()
    timing.synchronize(place.device)
    if time.perf_counter() - started > 4 * timing.SLOW:
        spent, done = time.perf_counter() - started, number
        return spent / done, engine.sums["loss"][1] / spent, done
    before, first = engine.sums["loss"][1], number
    started = timing.clock(place.device)
    while time.perf_counter() - started < place.most or number - first < 2:
        step()
    spent = timing.clock(place.device) - started
    return spent / (number - first), (engine.sums["loss"][1] - before) / spent, number - first


def _bare_step(engine: Engine, losses: Callable[[Histories], Any], given: list[Histories], turn: Iterator[int]) -> None:
    batch = given[next(turn) % len(given)]
    optimizer = engine.optimizers["model"]
    with engine.machine.autocast():
        summed = total(losses(batch), engine.machine)
    optimizer.zero_grad(set_to_none=True)
    summed.loss.backward()
    torch.nn.utils.clip_grad_norm_(engine.model.parameters(), 5.0)
    optimizer.step()


def training_rows() -> list[Row]:
    """Every loss at every size; the settings around them at 12,000 items."""

    def row(
        items: int, loss: str, precision: str = "float32", length: int = 200, tokens: int = 51_200,
        deterministic: bool = True, cost: float = 3.0, limit: float = 30.0, **further: Any,
    ) -> Row:  # fmt: skip
        case = f"{items:,} items, L {length}, {tokens:,} tokens, {precision}"
        case += "" if deterministic else ", not deterministic"
        case += ", TF32" if further.get("tf32") else ""
        side = loss + (f", compiled {further['compiled']}" if further.get("compiled") else "")
        run = partial(
            train, items=items, length=length, tokens=tokens, loss=loss, precision=precision,
            deterministic=deterministic, **further,
        )  # fmt: skip
        return Row("training", case, side, "targets", run, loss == PLAIN, deterministic, cost, limit)

    names = [name for name in LOSSES if name != "bpr"]
    rows = [row(12_000, loss) for loss in names]
    rows += [row(1_000_000, loss) for loss in names]
    rows += [row(12_000, loss, "bfloat16") for loss in names[:4]]
    for length, tokens, deterministic in (
        (50, 6_400, True), (50, 51_200, True), (200, 6_400, True), (200, 204_800, True),
        (200, 51_200, False), (200, 6_400, False), (50, 51_200, False),
    ):  # fmt: skip
        rows.append(row(12_000, "cross_entropy", length=length, tokens=tokens, deterministic=deterministic))
    rows.append(row(12_000, "cross_entropy", tf32=True))
    rows += [row(1_000_000, loss, deterministic=False) for loss in ("sampled_softmax", "gbce, shared")]
    rows += [row(items, loss) for items in (54_000, 3_000) for loss in names]
    rows += [row(1_000_000, loss, "bfloat16") for loss in names[1:5]]
    rows += [
        row(12_000, "cross_entropy", compiled=part, cost=30.0, limit=60.0, tokens=tokens)
        for part, tokens in (("backbone", 51_200), ("forward", 51_200))
    ]
    rows += [row(items, loss, "bfloat16") for items in (54_000, 3_000) for loss in names[:3]]
    rows += [row(12_000, loss, "bfloat16") for loss in names[4:]]
    rows.append(row(12_000, "bpr"))
    return rows


def evaluate(place: Place, items: int, side: str) -> Found:
    """Full ranking of every user's last item, with masks, lists of 20, metrics and groups."""
    items, users = place.tenth(items), place.tenth(place.tenth(USERS))
    offsets, flat = histories(users, items)
    ends = offsets[1:] - 1
    kept = np.ones(len(flat), bool)
    kept[ends] = False
    cases = Cases(
        np.arange(1, users + 1, dtype=np.int32), flat[ends], offsets - np.arange(users + 1), flat[kept]
    )  # fmt: skip
    popularity = np.bincount(cases.items, minlength=items + 1)
    scorer = as_scorer(sasrec(items, 200, "cross_entropy", popularity, place.device), place.device)
    judged = Evaluation()
    fixed = torch.randn(judged.batch_users, items, device=place.device)

    class Given:
        """Scores that cost nothing: what is left is masks, ranks, lists, metrics and groups."""

        max_history = 1

        def __call__(self, histories: Histories) -> Tensor:
            return fixed[: len(histories)].clone()

    def library(scores: Any) -> None:
        ranked = rank_cases(scores, cases, judged, recommend=20)
        summarize(evaluation_table(cases, ranked, popularity), judged, popularity, "full")

    steps: dict[str, timing.Step] = {
        "sort every user's scores": partial(_plain_ranking, scorer, cases, judged.batch_users),
        "judge": partial(library, scorer), "judge alone, scores given": partial(library, Given()),
    }  # fmt: skip
    return place.measure(steps[side], users)


@torch.no_grad()
def _plain_ranking(scorer: TrainedScorer, cases: Cases, batch: int) -> float:
    """Mean NDCG@10, the usual way: mask, sort everything, look where the target stands; no lists, no groups."""
    total = 0.0
    for begin in range(0, len(cases), batch):
        starts, lengths = cases.offsets[:-1][begin : begin + batch], cases.lengths[begin : begin + batch]
        last = np.minimum(lengths, 200)
        scores = scorer(slices(cases.items, starts + lengths - last, last, cases.users[begin : begin + batch], None))
        targets = torch.from_numpy(cases.targets[begin : begin + batch]).long().to(scores.device) - 1
        own = scores.gather(1, targets[:, None])
        seen = torch.from_numpy(padded(cases.items, starts, lengths)).to(scores.device)
        rows = torch.arange(len(seen), device=seen.device)[:, None].expand_as(seen)
        scores[rows[seen > 0], seen[seen > 0] - 1] = -torch.inf
        scores.scatter_(1, targets[:, None], own)
        ranks = (scores.argsort(dim=1, descending=True) == targets[:, None]).nonzero()[:, 1]
        total += float(torch.where(ranks < 10, 1 / (ranks + 2.0).log2(), 0.0).sum())
    return total / len(cases)


def evaluation_rows() -> list[Row]:
    """Three catalogues, three sides; that without a model is no form of the others."""
    plain, alone = "sort every user's scores", "judge alone, scores given"
    return [
        Row("evaluation", f"{items:,} items, {'no model' if side == alone else 'L 200'}", side, "users",
            partial(evaluate, items=items, side=side), side == plain)
        for items in (12_000, 3_000, 54_000) for side in (plain, "judge", alone)
    ]  # fmt: skip


# ---------------------------------------------------------------- language models


def language(place: Place, task: str, side: str, shape: str, length: int, frame: int, batch: int) -> Found:
    """A step of latent reasoning, in bfloat16, as `reasoning.py` has it."""
    import reasoning

    if place.tiny:
        shape, length, frame, batch = "tiny", max(10, length // 10), frame // 5, max(2, batch // 10)
    step = reasoning.prepare(task, side, shape, place.device.type, length, frame, batch, torch.bfloat16)
    vocabulary = reasoning.SHAPES[shape]["vocab_size"]
    rows = reasoning.texts(reasoning.TEXTS if task == "CRRL step" else 2 * batch, length, frame, vocabulary)
    units = batch if task == "CRRL step" else sum(len(row) for row in rows)
    return place.measure(step, units, count_flops=True)


@dataclass
class Asked:
    """What `answer` reads of a question."""

    model: Any
    image_token: int
    pictured: bool = True


def captions(place: Place, side: str, batch: int, new_tokens: int) -> Found:
    """Captions of pictures of 224 pixels a side: Qwen2.5-0.5B's text decoder behind a vision part of eight layers."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    import reasoning
    from tessera.language.answers import answer
    from tessera.language.models import LanguageModel
    from tessera.language.questions import Pixels

    class Spoken(reasoning.Words):
        """A tokenizer whose words are the numbers of tokens."""

        def batch_decode(self, made: Tensor, skip_special_tokens: bool) -> list[str]:
            return [" ".join(str(token) for token in row) for row in made.tolist()]

    text = dict(reasoning.SHAPES["tiny" if place.tiny else "qwen"])
    if place.tiny:
        batch, new_tokens = max(2, batch // 10), 4
    half, vocabulary = text["hidden_size"] // text["num_attention_heads"] // 2, text["vocab_size"]
    part = half * 3 // 8
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [half - 2 * part, part, part]}
    width, layers, heads = (64, 2, 2) if place.tiny else (512, 8, 8)
    image, start, end = vocabulary - 1, vocabulary - 2, vocabulary - 3
    config = Qwen2_5_VLConfig(
        text_config={**text, "max_position_embeddings": 1024, "rope_parameters": rope, "tie_word_embeddings": True,
                     "bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0},
        vision_config={"depth": layers, "hidden_size": width, "intermediate_size": 4 * width, "num_heads": heads,
                       "out_hidden_size": text["hidden_size"], "patch_size": 14, "spatial_merge_size": 2,
                       "temporal_patch_size": 2, "fullatt_block_indexes": list(range(layers))},
        image_token_id=image, video_token_id=vocabulary - 4, vision_start_token_id=start, vision_end_token_id=end,
        tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device(place.device):
        full = Qwen2_5_VLForConditionalGeneration(config).eval().requires_grad_(False)
    for weight in full.parameters():
        weight.data = weight.data.to(torch.bfloat16)
    model = LanguageModel(
        full, full.model.language_model, Spoken(), "vision", text["hidden_size"], 1024, None, place.device
    )
    side_patches = 4 if place.tiny else 16
    grid = torch.tensor([1, side_patches, side_patches])
    pixels = [Pixels(torch.randn(side_patches**2, 3 * 2 * 14 * 14), grid) for _ in range(batch)]
    words = np.random.default_rng(0).integers(100, vocabulary - 10, 40).tolist()
    row = [start, *[image] * (side_patches**2 // 4), end, *words]
    question: Any = Asked(model, image)
    made = 0

    def step() -> None:
        nonlocal made
        at_once = 1 if side == "an item at a time" else batch
        asked = 1 if side == "an item at a time" else batch
        made = 0
        for begin in range(0, asked, at_once):
            told = answer(question, [row] * at_once, pixels[begin : begin + at_once], new_tokens)
            made += sum(len(text.split()) for text in told)

    found = place.measure(step, 1.0, f"{len(row)} tokens read an item, {side_patches**2} patches")
    found.rate = made / found.seconds
    return found


def language_rows() -> list[Row]:
    """Export, training steps of both stages, captions; two shapes."""
    rows: list[Row] = []

    def add(task: str, sides: list[str], shape: str, length: int, frame: int, batch: int, unit: str) -> None:
        name = {"qwen": "0.5B", "qwen 3B": "3B"}[shape]
        framed = f", the first {frame} the same" if frame else ""
        case = f"{task}, {name}, {length} tokens{framed}, batch {batch}"
        for side in sides:
            run = partial(language, task=task, side=side, shape=shape, length=length, frame=frame, batch=batch)
            trains = task != "export"
            # the published stage II reads every text again for every rollout
            cost = 12.0 if (task, side) == ("CRRL step", "plain") else 8.0 if shape == "qwen 3B" else 5.0
            rows.append(Row("language", case, side, unit, run, side == "plain", trains, cost, 45.0))

    both, crrl = ["plain", "ours"], ["plain", "ours, token policy", "ours, Gaussian policy"]
    add("export", both, "qwen", 200, 0, 64, "tokens")
    add("LRCL step", both, "qwen", 200, 0, 32, "tokens")
    add("CRRL step", crrl, "qwen", 200, 0, 4, "items")
    for side, plain in (("an item at a time", True), ("batches", False)):
        run = partial(captions, side=side, batch=64, new_tokens=64)
        rows.append(Row("language", "captions, 0.5B, batch 64", side, "new tokens", run, plain, False, 6.0, 45.0))
    add("export", both, "qwen", 60, 40, 256, "tokens")
    add("LRCL step", both, "qwen", 60, 40, 64, "tokens")
    add("CRRL step", crrl[1:], "qwen", 200, 0, 32, "items")
    add("export", both, "qwen 3B", 200, 0, 32, "tokens")
    add("LRCL step", both, "qwen 3B", 200, 0, 8, "tokens")
    add("CRRL step", ["ours, Gaussian policy, no cache"], "qwen", 200, 0, 4, "items")
    return rows


# ---------------------------------------------------------------- decoding, quantising, scoring, lifelong histories


def decode(place: Place, items: int, beams: int, side: str) -> Found:
    """Beams of 64 users, as `decoding.py` has it."""
    import decoding

    model, given = decoding.build(place.tenth(items))
    model, given = model.to(place.device), given[: place.tenth(len(given))].to(place.device)
    note = ""
    if side == "transformers generate":
        other, follow = decoding.transformers_model(model), decoding.allowed(model)

        def step() -> tuple[Tensor, Tensor]:
            return decoding.theirs(other, model, follow, given, beams)

        with torch.no_grad():
            try:
                apart = decoding.agree(decoding.ours(model, given, beams), step())
                note = f"same codes as ours; log probabilities differ by {apart:.1e}"
            except SystemExit as error:
                note = f"NOT THE SAME: {error}"
    else:

        def step() -> tuple[Tensor, Tensor]:
            return decoding.ours(model, given, beams)

    return place.measure(torch.no_grad()(step), len(given), note)


def decoding_rows() -> list[Row]:
    """A large and a small catalogue."""
    return [
        Row("decoding", f"TIGER, {items:,} items, {beams} beams, 64 users", side, "users",
            partial(decode, items=items, beams=beams, side=side), number == 0, cost=4.0)
        for items, beams in ((12_000, 10), (12_000, 50), (1_200, 10), (12_000, 30))
        for number, side in enumerate(("transformers generate", "ours"))
    ]  # fmt: skip


def quantize(place: Place, side: str) -> Found:
    """Steps of RQ-VAE on 12,000 vectors of width 768."""
    import quantization
    from tessera.quantization.rq_vae import fit
    from tessera.quantization.vectors import PartVectors, standard
    from tessera.settings.quantizers.learned_base import QuantizerSteps
    from tessera.settings.quantizers.rq_vae import RQVAE

    vectors = quantization.catalogue(place.tenth(12_000), place.tenth(768))
    batch = place.tenth(1024)
    if side == "plain loop":
        x = torch.from_numpy(vectors)
        x = standard(x, (x.shape[1],)).apply(x).to(place.device)
        _, work = quantization.training(quantization.Broadcast(), x, batch)
        turn = iter(range(10**9))
        return place.measure(lambda: work(next(turn)), 1)
    warm, steps = (5, 20) if place.tiny else (30, 200)
    training = QuantizerSteps(steps=steps, batch=batch, device=place.device.type, checkpoint_seconds=1e9)  # type: ignore[arg-type]
    settings = RQVAE(
        tables=["t"], levels=quantization.LEVELS, codes=quantization.CODES if not place.tiny else 32,
        dim=quantization.DIM, hidden=quantization.HIDDEN, codebook="ema" if "averages" in side else "loss",
        training=training,
    )  # fmt: skip
    data = PartVectors("t", vectors, np.ones(len(vectors), bool), (vectors.shape[1],))
    with tempfile.TemporaryDirectory() as folder:
        started = timing.clock(place.device)
        curve = fit(settings, [data], Path(folder)).history
        whole = timing.clock(place.device) - started
    seconds = (curve[-1]["seconds"] - curve[warm - 1]["seconds"]) / (steps - warm)
    seconds = max(seconds, 1e-6)  # the curve is told in milliseconds
    return Found(1 / seconds, seconds, note=f"by the engine's curve; {whole:.1f} s with start and {steps} steps")


def quantization_rows() -> list[Row]:
    """A plain loop and ours."""
    return [
        Row("RQ-VAE", "12,000 x 768, batch 1,024", side, "steps", partial(quantize, side=side), number == 0, True, 4.0)
        for number, side in enumerate(("plain loop", "ours, codebooks by loss", "ours, moving averages"))
    ]


def mix(place: Place, states: int, train: bool, side: str) -> Found:
    """Scores, or loss and gradients, of states against 12,086 items of three tables, as `mme_sid.py` has it."""
    import mme_sid

    sides = mme_sid.scores(place.tenth(1024), place.tenth(states), train, place.tenth(mme_sid.ITEMS), place.device.type)
    return place.measure(sides[side] if train else torch.no_grad()(sides[side]), place.tenth(states))


def mixing_rows() -> list[Row]:
    """Scores of a request and of a batch; training steps."""
    plain = "expand every item"
    sides = {False: [plain, "mix item vectors", "as judged"], True: [plain, "as training runs"]}
    return [
        Row("MME-SID", f"{'loss and gradients' if train else 'scores'}, width 1,024, {states:,} states", side, "states",
            partial(mix, states=states, train=train, side=side), side == plain, train)
        for states, train in ((512, False), (2048, True), (16, False), (1, False), (16, True))
        for side in sides[train]
    ]  # fmt: skip


def request(place: Place, length: int, candidates: int, side: str) -> Found:
    """Requests of one history and many candidates, as `lifelong.py` has them; or a row a candidate."""
    import lifelong
    from tessera.ctr.batch import Batch
    from tessera.ctr.task import build as build_click_model
    from tessera.settings.clicks.base import CTRModel

    items, length, candidates = place.tenth(20_000), place.tenth(length), place.tenth(candidates)
    torch.manual_seed(0)
    settings = TypeAdapter(CTRModel).validate_python(lifelong.MODELS["r2led"])
    model: Any = build_click_model(settings, lifelong.make_catalogue(items)).eval().to(place.device)
    asked = [
        tuple(part.to(place.device) for part in lifelong.make_history(length, items, False, seed)) for seed in range(4)
    ]
    if side == "request":
        found = lifelong.measure(
            model, asked, candidates, items, 10 * place.most, lambda: timing.clock(place.device)
        )  # fmt: skip
        note = f"p50 {found['p50']:.3g} ms, p99 {found['p99']:.3g} ms of {found['requests']} requests; "
        note += f"prepare {found['prepare']:.3g} ms, score {found['score']:.3g} ms"
        (history, ages), wanted = asked[0], torch.arange(1, candidates + 1, device=place.device)
        seconds = found["p50"] / 1000

        @torch.inference_mode()
        def once() -> None:
            model.score_all(model.prepare(history, ages), wanted)

        kernels, top = place.kernels(once, seconds)
        return Found(candidates / seconds, seconds, None, kernels, None, note, top)
    wanted = torch.arange(1, candidates + 1, device=place.device)
    (history, ages), ones = asked[0], torch.ones(candidates, dtype=torch.int64, device=place.device)

    def rows() -> Batch:
        return Batch(
            ones, wanted, history.repeat(candidates, 1), ones * len(history), ages.repeat(candidates, 1), ones.float()
        )

    return place.measure(torch.inference_mode()(lambda: model.logits(rows())), candidates)


def lifelong_rows() -> list[Row]:
    """Long histories, few and many candidates."""
    return [
        Row("R2LED", f"{length:,} events, {candidates:,} candidates", side, "candidates",
            partial(request, length=length, candidates=candidates, side=side), number == 0)
        for length, candidates in ((10_000, 100), (100_000, 100), (10_000, 1_000), (1_000, 100), (100_000, 1_000))
        for number, side in enumerate(("a row a candidate", "request"))
    ]  # fmt: skip


def all_rows() -> list[Row]:
    """Everything, section by section."""
    rows = [
        *training_rows(), *evaluation_rows(), *language_rows(), *decoding_rows(), *quantization_rows(),
        *mixing_rows(), *lifelong_rows(),
    ]  # fmt: skip
    assert set(SECTIONS) == {row.section for row in rows}
    return rows
