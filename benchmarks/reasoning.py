"""Latent reasoning side by side with a plain implementation of the published steps, at equal numbers.

The plain side runs the language model over the whole text twice for every embedding. In CRRL it does so for every
rollout and, for every rollout again, for all its candidates, and it takes logits at every position (ReaEmb's published
code). Ours reads a text once and runs [thought, end] on its keys and values; in CRRL texts are read once for the stage.
Every side runs in a process of its own, in turn; values and gradients are compared before times are printed.

    python benchmarks/reasoning.py --repeats 3                 # a small decoder, one thread
    python benchmarks/reasoning.py --shape qwen --device cuda  # the shape of Qwen2.5-0.5B, random weights
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, inject_adapter_in_model
from scipy import sparse
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from tessera.artifacts.models import read_tensors, write_tensors
from tessera.embedding.cooccurrence import Candidates
from tessera.embedding.crrl import CollaborativeTraining
from tessera.embedding.crrl_published import PublishedTraining, batch_advantages, thought_token
from tessera.embedding.prefixes import Prefixes
from tessera.embedding.rewards import rank_reward
from tessera.language.models import LanguageModel
from tessera.language.reasoning import LatentReasoner, ReasoningAttention
from tessera.language.tokens import pad_rows
from tessera.objectives.contrastive import soft_contrastive
from tessera.settings.recipes.crrl import CRRLTable
from tessera.settings.recipes.lrcl import LRCLTable
from tessera.settings.training import Steps
from tessera.training.losses import total
from tessera.training.machine import Machine

SHAPES: dict[str, dict[str, int]] = {
    "tiny": {
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
        "intermediate_size": 128, "vocab_size": 500,
    },
    "small": {
        "hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 1024, "vocab_size": 4000,
    },
    "qwen": {
        "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
        "intermediate_size": 4864, "vocab_size": 151936,
    },
    "qwen 3B": {
        "hidden_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 2,
        "intermediate_size": 11008, "vocab_size": 151936,
    },
}  # fmt: skip
TASKS = {
    "export": ["plain", "ours"],
    "LRCL step": ["plain", "ours"],
    "CRRL step": ["plain", "ours, token policy", "ours, Gaussian policy", "ours, Gaussian policy, no cache"],
}
TARGETS = {"export": 1.8, "LRCL step": 1.8, "CRRL step": 10.0}
GROUP, CANDIDATES, TEXTS = 8, 10, 64


class Words:
    """As much of a tokenizer as is asked for."""

    pad_token_id, eos_token_id, sep_token_id = 0, 1, None

    def get_vocab(self) -> dict[str, int]:
        return {str(number): number for number in range(100)}


def build(shape: str, device: str, dtype: torch.dtype = torch.float32) -> tuple[LanguageModel, ReasoningAttention]:
    """A decoder of random weights held in `dtype`, made where it stays, and an attention in float32."""
    torch.manual_seed(0)
    config = Qwen2Config(**SHAPES[shape], max_position_embeddings=1024, tie_word_embeddings=True)
    with torch.device(device):
        full = Qwen2ForCausalLM(config).eval().requires_grad_(False)
    for weight in full.parameters():  # buffers of positions stay exact
        weight.data = weight.data.to(dtype)
    model = LanguageModel(full, full.model, Words(), "decoder", config.hidden_size, 1024, None, torch.device(device))
    return model, ReasoningAttention(config.hidden_size).to(device)


def texts(count: int, length: int, frame: int, vocabulary: int) -> list[list[int]]:
    """Token rows of about the same length, the first `frame` tokens the same in all, as around real items."""
    generator = np.random.default_rng(0)
    same = generator.integers(100, vocabulary, frame).tolist()
    lengths = generator.integers(frame + int(0.8 * (length - frame)), length + 1, count)
    return [[*same, *generator.integers(100, vocabulary, int(n) - frame).tolist()] for n in lengths]


# ---------------------------------------------------------------- the plain side


def plain_passes(
    model: LanguageModel, attention: ReasoningAttention, rows: list[list[int]], noise: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Two passes over whole texts: embeddings (rows, width), states (rows, length, width), places of the thoughts."""
    whole = [[*row, 0, model.end_token] for row in rows]
    ids, mask = (part.to(model.device) for part in pad_rows(whole, model.pad_token))
    place = mask.sum(1) - 2
    each = torch.arange(len(rows), device=model.device)
    embedded = model.embed(ids)
    positions = torch.arange(ids.shape[1], device=model.device).expand_as(ids)
    with torch.no_grad():
        states = model.tower(inputs_embeds=embedded, attention_mask=mask, use_cache=False).last_hidden_state
    seen = (positions < place[:, None]).long()
    thought = attention(states[each, place - 1], place - 1, states, seen, positions)
    if noise is not None:
        thought = thought + noise
    inputs = embedded.clone()
    inputs[each, place] = thought.to(inputs.dtype)
    states = model.tower(inputs_embeds=inputs, attention_mask=mask, use_cache=False).last_hidden_state
    wide = mask[..., None].to(states.dtype)
    return (states * wide).sum(1) / wide.sum(1), states, place


def plain_crrl(model: LanguageModel, attention: ReasoningAttention, ours: CollaborativeTraining) -> Callable[[], Any]:
    """The published stage II on the same items, candidates and noise; returns losses and the first gradient."""
    optimizer = torch.optim.AdamW(attention.parameters(), lr=1e-4)

    def step() -> tuple[list[Tensor], list[Tensor]]:
        chosen = np.searchsorted(ours.candidates.anchors, ours.batches(0))
        items, weights = ours.fixed[0][chosen], ours.fixed[1][chosen]
        rows = [ours.prefixes.rows[place] for place in ours._rows(ours.batches(0))]
        noise = ours._noise(0, torch.empty(len(rows), 1, 1, model.width, device=model.device))[:, :, 0]
        repeated = [row for row in rows for _ in range(GROUP)]
        with torch.no_grad():
            rolled = plain_passes(model, attention, repeated, noise.flatten(0, 1))[0]
            similarity = []
            for rollout, embedding in enumerate(rolled):
                places = ours._rows(items[rollout // GROUP])
                others = plain_passes(model, attention, [ours.prefixes.rows[place] for place in places])[0]
                similarity.append(others @ embedding)
            told = torch.stack(similarity).reshape(len(rows), GROUP, CANDIDATES)
            advantages = batch_advantages(rank_reward(told, torch.from_numpy(weights).to(told)))
        old, losses, gradient = None, [], []
        ids, mask = pad_rows([[*row, thought_token(model), model.end_token] for row in repeated], model.pad_token)
        ids, mask = ids.to(model.device), mask.to(model.device)
        for _ in range(2):
            states = plain_passes(model, attention, repeated, noise.flatten(0, 1))[1]
            likelihood = model.logits(states).log_softmax(-1).gather(-1, ids[..., None])[..., 0]
            old = likelihood.detach() if old is None else old
            ratio, sign = (likelihood - old).exp(), advantages.reshape(-1, 1)
            loss = -(torch.minimum(ratio * sign, ratio.clamp(0.8, 1.28) * sign) * mask).sum() / mask.sum()
            optimizer.zero_grad()
            loss.backward()
            losses.append(loss.detach())
            gradient = gradient or [parameter.grad.clone() for parameter in attention.parameters()]
            optimizer.step()
        return losses, gradient

    return step


def our_crrl(attention: ReasoningAttention, ours: CollaborativeTraining) -> Callable[[], Any]:
    optimizer = torch.optim.AdamW(attention.parameters(), lr=1e-4)

    def step() -> tuple[list[Tensor], list[Tensor]]:
        losses, gradient = [], []
        for update in ours.updates(0):
            loss = total(update.losses(), ours.machine).loss
            optimizer.zero_grad()
            loss.backward()
            losses.append(loss.detach())
            gradient = gradient or [parameter.grad.clone() for parameter in attention.parameters()]
            optimizer.step()
        return losses, gradient

    return step


# ---------------------------------------------------------------- tasks


def prepare(
    task: str, side: str, shape: str, device: str, length: int, frame: int, batch: int,
    dtype: torch.dtype = torch.float32,
) -> Callable[[], Any]:  # fmt: skip
    """A step that returns tensors to compare."""
    model, attention = build(shape, device, dtype)
    rows = texts(TEXTS if task == "CRRL step" else 2 * batch, length, frame, SHAPES[shape]["vocab_size"])
    start = LRCLTable(model="m", batch_tokens=8192)
    if task == "CRRL step":
        return prepare_crrl(side, model, attention, start, rows, batch)
    if task == "LRCL step":
        names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        config = LoraConfig(r=8, lora_alpha=32, lora_dropout=0.0, target_modules=names, init_lora_weights=False)
        inject_adapter_in_model(config, model.tower)
    reasoner = LatentReasoner(model, attention, start)
    ids, mask = (part.to(device) for part in pad_rows(rows, 0))

    def embed() -> Tensor:
        return plain_passes(model, attention, rows)[0] if side == "plain" else reasoner(ids, mask)

    if task == "export":
        return torch.no_grad()(lambda: ([embed()], []))
    parameters = [parameter for parameter in reasoner.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.0)  # the same step again and again

    def step() -> tuple[list[Tensor], list[Tensor]]:
        vectors = embed()
        loss = soft_contrastive(vectors[:batch], vectors[batch:], 1.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return [loss.detach(), vectors.detach()], [p.grad.clone() for p in parameters]

    return step


def prepare_crrl(
    side: str, model: LanguageModel, attention: ReasoningAttention, start: LRCLTable, rows: list[list[int]], batch: int
) -> Callable[[], Any]:
    settings = CRRLTable(
        model="m", preset="official", policy="token" if side in ("plain", "ours, token policy") else "gaussian",
        noise_std=0.1, group=GROUP, candidates=CANDIDATES, cache_gib=0.0 if side.endswith("no cache") else 16.0,
        training=Steps(batch=batch, device="cuda" if model.device.type == "cuda" else "cpu"),
    )  # fmt: skip
    items = np.arange(1, len(rows) + 1)
    positives = np.roll(items, 1)[:, None].astype(np.int64)
    counts = sparse.csr_matrix((len(rows) + 1, len(rows) + 1), dtype=np.int64)
    candidates = Candidates(items, positives, np.ones((len(rows), 1)), items, counts, CANDIDATES)
    reasoner = LatentReasoner(model, attention, start).eval()
    machine = Machine(settings.training)
    if side == "plain":
        settings_gib = 0.0
        ours = PublishedTraining(
            settings, reasoner, Prefixes(reasoner, rows, settings_gib, 8192, machine), candidates, machine
        )
        return plain_crrl(model, attention, ours)
    started = clock(model.device.type)
    prefixes = Prefixes(reasoner, rows, settings.cache_gib, 8192, machine)
    print(f"constants of {len(rows)} texts: {clock(model.device.type) - started:.2f} s", file=sys.stderr)
    return our_crrl(attention, PublishedTraining(settings, reasoner, prefixes, candidates, machine))


def clock(device: str) -> float:
    """CPU seconds of this process; seconds on a GPU."""
    if device != "cuda":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def one_side(arguments: argparse.Namespace) -> None:
    """Run one side once to warm up, then for the time, at most three times or ten seconds; print JSON."""
    torch.set_num_threads(1)
    device = arguments.device
    step = prepare(
        arguments.task, arguments.side, arguments.shape, device, arguments.length, arguments.frame, arguments.batch
    )

    def peak() -> float:
        if device == "cuda":
            return torch.cuda.max_memory_allocated() / 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    before = peak()
    found = step()
    more = peak() - before
    times: list[float] = []
    while len(times) < 3 and sum(times) < 10:
        started = clock(device)
        step()
        times.append(clock(device) - started)
    seconds = statistics.median(times)
    write_tensors(arguments.save, {f"{i}/{j}": t for i, part in enumerate(found) for j, t in enumerate(part)})
    print(json.dumps({"seconds": seconds, "mebibytes": more}))


def check(expected: Path, found: Path) -> float:
    """The largest difference of values and gradients, relative to the largest of each.

    Raises:
        AssertionError: it is more than rounding.
    """
    one, other = read_tensors(expected), read_tensors(found)
    assert one.keys() == other.keys()
    worst = max(float((a - other[name]).abs().max() / a.abs().max().clamp(min=1e-6)) for name, a in one.items())
    assert worst < 2e-3, f"the two sides differ by {worst}"
    return worst


def main() -> None:
    """Everything in turn; medians and ratios as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=list(SHAPES), default="small")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--lengths", type=int, nargs="+", default=[60, 200])
    parser.add_argument("--frame", type=int, default=0, help="tokens that all texts begin with")
    parser.add_argument("--batch", type=int, help="texts of a view; items of a CRRL step")
    for name in ("--task", "--side", "--save"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--length", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        one_side(arguments)
        return
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    print(f"{platform.machine()}, torch {torch.__version__}, shape {arguments.shape}, {arguments.device}\n")
    print("| task | tokens | side | seconds | ratio | memory above the model, MiB | largest difference |")
    print("|---|---|---|---|---|---|---|")
    for task, sides in TASKS.items():
        for length in arguments.lengths:
            batch = arguments.batch or (2 if task == "CRRL step" else 8)
            with tempfile.TemporaryDirectory() as folder:
                told: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
                for _ in range(arguments.repeats):
                    for number, side in enumerate(sides):
                        command = [
                            sys.executable, __file__, "--task", task, "--side", side, "--length", str(length),
                            "--shape", arguments.shape, "--device", arguments.device, "--batch", str(batch),
                            "--frame", str(arguments.frame),
                            "--save", f"{folder}/{number}.safetensors",
                        ]  # fmt: skip
                        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
                        if done.returncode:
                            raise SystemExit(f"{task}, {side}:\n{done.stderr[-3000:]}")
                        told[side].append(json.loads(done.stdout.strip().splitlines()[-1]))
                plain = statistics.median(run["seconds"] for run in told["plain"])
                for number, side in enumerate(sides):
                    seconds = statistics.median(run["seconds"] for run in told[side])
                    memory = statistics.median(run["mebibytes"] for run in told[side])
                    apart = ""
                    if side != "plain" and "Gaussian" not in side:
                        files = (Path(folder, f"{n}.safetensors") for n in (0, number))
                        apart = f"{check(*files):.1e}"
                    row = [task, length, side, f"{seconds:.3g}", f"{plain / seconds:.1f}x", f"{memory:.0f}", apart]
                    print(f"| {' | '.join(map(str, row))} |", flush=True)
    print(f"\nTargets: {', '.join(f'{task} {target}x' for task, target in TARGETS.items())}")


if __name__ == "__main__":
    main()
