"""Constrained decoding of semantic IDs side by side with transformers' beam search and a Python prefix callback.

Both sides hold the same weights and the same catalogue. The other side is what is usually written: T5's `generate`
with `prefix_allowed_tokens_fn`, which looks every beam's prefix up in a dictionary, and `renormalize_logits`, so that
both take probabilities over the codes that lead to an item. The results are compared before times are printed: the same
codes in the same order for every user, but where two log probabilities are closer than float32 can tell.

    python benchmarks/decoding.py                  # 1,200 and 12,000 items; 10, 30 and 50 beams; 64 users
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import T5Config, T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from tessera.artifacts.codes import ABSENT, Part, SemanticIds
from tessera.recommenders.decoding import beam_search, exact_scores
from tessera.recommenders.systems.tiger import TIGER
from tessera.recommenders.t5 import Attention, Decoder, Encoder, hidden
from tessera.settings.systems.tiger import TIGERSystem

SIZES = (256, 256, 256)
HISTORY = 20


def build(items: int) -> tuple[TIGER, Tensor]:
    """Two layers of width 128 with random weights over codes as clustered as those of a catalogue, and 64 histories.

    Codes of the first level are unlike in size, and later ones are few below each prefix.
    """
    rng = np.random.default_rng(0)
    rows: list[tuple[int, ...]] = []
    weights = 1 / (np.arange(256) + 10.0)
    while len(rows) < items:
        first = rng.choice(256, items, p=weights / weights.sum())
        second = (first * 37 + rng.integers(0, 12, items)) % 256
        rows = list(dict.fromkeys([*rows, *zip(first, second, rng.integers(0, 256, items), strict=True)]))
    codes = np.concatenate([np.full((1, 3), ABSENT), np.array(rows[:items])]).astype(np.int64)
    torch.manual_seed(0)
    # T5 as transformers has it
    settings = TIGERSystem(
        semantic_ids="codes", dim=128, inner_dim=512, head_dim=32,
        encoder="bidirectional", pool_items=False, recency=False, summary=False, tied=False,
    )  # fmt: skip
    model = TIGER(settings, SemanticIds(codes, (Part("t", SIZES),)), np.ones(items + 1)).eval()
    with torch.no_grad():
        # first weights are small and undecided; a beam search then keeps what noise prefers
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(5)
        assert model.output is not None
        model.output.mul_(4)
    return model, torch.from_numpy(rng.integers(1, items + 1, (64, HISTORY)))


def transformers_model(model: TIGER) -> T5ForConditionalGeneration:
    """The same weights in transformers: tokens are ours, and two more end what is read and begin what is written."""
    settings = model.settings
    assert model.output is not None
    tokens = len(model.items.weight)
    config = T5Config(
        vocab_size=tokens + 2, d_model=settings.dim, d_kv=settings.head_dim, d_ff=settings.inner_dim,
        num_layers=settings.layers, num_decoder_layers=settings.layers, num_heads=settings.heads, dropout_rate=0.0,
        feed_forward_proj="relu", scale_decoder_outputs=False, pad_token_id=0,
        eos_token_id=None, decoder_start_token_id=tokens + 1,
    )  # fmt: skip
    other = T5ForConditionalGeneration(config).eval().to(model.output.device)
    # transformers ties it to the token vectors
    other.lm_head = nn.Linear(settings.dim, tokens + 2, bias=False, device=model.output.device)
    with torch.no_grad():
        other.shared.weight.copy_(
            torch.cat([model.items.weight * model.items.scale, model.end[None], model.start[None]])
        )
        other.lm_head.weight.zero_()
        other.lm_head.weight[1:tokens].copy_(model.output)
        copy_stack(model.encoder, other.encoder)
        copy_stack(model.decoder, other.decoder)
    return other


def copy_stack(ours: Encoder | Decoder, other: Any) -> None:
    """Our weights into a stack of transformers."""

    def attention(mine: Attention, target: Any) -> None:
        for name, letter in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "o")):
            getattr(target, letter).weight.copy_(getattr(mine, name).weight)

    other.block[0].layer[0].SelfAttention.relative_attention_bias.weight.copy_(ours.positions.weight)
    other.final_layer_norm.weight.copy_(ours.norm.weight)
    for block, target in zip(ours.blocks, other.block, strict=True):
        layers = list(target.layer)
        layers[0].layer_norm.weight.copy_(block.own_norm.weight)
        attention(block.own, layers[0].SelfAttention)
        if block.read is not None:
            layers[1].layer_norm.weight.copy_(block.read_norm.weight)
            attention(block.read, layers[1].EncDecAttention)
        layers[-1].layer_norm.weight.copy_(block.inner_norm.weight)
        layers[-1].DenseReluDense.wi.weight.copy_(block.inner.inner.weight)
        layers[-1].DenseReluDense.wo.weight.copy_(block.inner.out.weight)


def allowed(model: TIGER) -> Callable[[int, Tensor], list[int]]:
    """What a script would write: a dictionary from prefixes to the tokens that may follow."""
    following: dict[tuple[int, ...], list[int]] = {}
    for row in model.items.tokens[1:].tolist():
        for level in range(len(row)):
            following.setdefault(tuple(row[:level]), []).append(row[level])
    following = {prefix: sorted(set(tokens)) for prefix, tokens in following.items()}
    return lambda _, written: following[tuple(written[1:].tolist())]


def lengths(histories: Tensor) -> Tensor:
    """(users,) all histories are full."""
    return torch.full((len(histories),), HISTORY, device=histories.device)


def encoded(model: TIGER, histories: Tensor) -> tuple[Tensor, Tensor]:
    """Encoder states of histories, and what of them may be looked at."""
    found: list[tuple[Tensor, Tensor]] = []
    hook = model.encoder.register_forward_hook(lambda _, inputs, states: found.append((states, inputs[1])))
    model.read(histories, lengths(histories), None)
    hook.remove()
    return found[0]


def ours(
    model: TIGER, histories: Tensor, beams: int, read: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """(users, beams) leaves and log probabilities, best first; from encoder states where they are given."""
    if read is None:
        memory = model.read(histories, lengths(histories), None)
    else:
        memory = model.decoder.remember(read[0], hidden(read[1]))
    best = beam_search(model, memory, model.trie, beams, "catalogue").topk(beams)
    return best.indices, best.values


def theirs(
    other: T5ForConditionalGeneration,
    model: TIGER,
    follow: Callable[[int, Tensor], list[int]],
    histories: Tensor,
    beams: int,
    read: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """The same by transformers."""
    given = {} if read is None else {"encoder_outputs": BaseModelOutput(last_hidden_state=read[0])}
    tokens = F.pad(model.items.tokens[histories].flatten(1), (0, 1), value=len(model.items.weight))
    found = other.generate(
        input_ids=tokens, attention_mask=torch.ones_like(tokens), **given, num_beams=beams, num_return_sequences=beams,
        max_new_tokens=len(SIZES), prefix_allowed_tokens_fn=follow, renormalize_logits=True, length_penalty=0.0,
        output_scores=True, return_dict_in_generate=True, do_sample=False,
    )  # fmt: skip
    written = found.sequences[:, 1:].view(len(histories), beams, -1)
    codes = written - torch.tensor(model.items.starts[:-1], device=written.device)
    nodes = torch.zeros(codes.shape[:2], dtype=torch.long, device=written.device)
    for level in range(codes.shape[2]):
        nodes = model.trie.step(nodes, codes[:, :, level])
    return nodes - model.trie.level_starts[-2], found.sequences_scores.view(len(histories), beams)


def agree(one: tuple[Tensor, Tensor], two: tuple[Tensor, Tensor]) -> float:
    """The largest difference of log probabilities.

    Raises:
        SystemExit: other codes, or another order than rounding explains.
    """
    apart = float((one[1] - two[1]).abs().max())
    unlike = one[0] != two[0]
    if apart > 1e-4:
        raise SystemExit(f"log probabilities differ by {apart}")
    for row in unlike.any(1).nonzero()[:, 0].tolist():
        # the same set but for what ties with the last, in an order that differs only among near equals
        for place in unlike[row].nonzero()[:, 0].tolist():
            near = (one[1][row] - one[1][row, place]).abs() < 1e-4
            if int(near.sum()) < 2 and place < one[0].shape[1] - 1:
                raise SystemExit(f"user {row}, place {place}: {one[0][row, place]} and {two[0][row, place]}")
    return apart


@torch.no_grad()
def one_side(side: str, items: int, beams: int) -> dict[str, float]:
    """CPU seconds of 64 users, after a warm-up of two."""
    torch.set_num_threads(1)
    model, histories = build(items)
    if side == "transformers":
        other, follow = transformers_model(model), allowed(model)
        run: Callable[..., Any] = lambda rows, read=None: theirs(other, model, follow, rows, beams, read)  # noqa: E731
    elif side == "exact":
        run = lambda rows: exact_scores(  # noqa: E731
            model, model.read(rows, lengths(rows), None), model.trie, "catalogue"
        )
    elif side == "encoder":
        run = lambda rows: model.read(rows, lengths(rows), None)  # noqa: E731
    else:
        run = lambda rows, read=None: ours(model, rows, beams, read)  # noqa: E731
    run(histories[:2])
    started = time.process_time()
    found = run(histories)
    told = {"seconds": time.process_time() - started, "apart": 0.0, "prefixes": model.trie.level_starts[-2]}
    if side in ("transformers", "ours"):
        read = encoded(model, histories)
        started = time.process_time()
        alone = run(histories, read)
        told["alone"] = time.process_time() - started
        expected = ours(model, histories, beams)
        told["apart"] = max(agree(expected, found), agree(expected, alone))
    return told


def main() -> None:
    """Everything in turn, each in a process of its own; medians and ratios as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[1200, 12000])
    parser.add_argument("--beams", type=int, nargs="+", default=[10, 30, 50])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(one_side(arguments.side, arguments.items[0], arguments.beams[0])))
        return
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}

    def measure(sides: list[str], items: int, beams: int) -> dict[str, list[dict[str, float]]]:
        told: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
        for _ in range(arguments.repeats):
            for side in sides:
                command = [sys.executable, __file__, "--side", side, "--items", str(items), "--beams", str(beams)]
                done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
                if done.returncode:
                    raise SystemExit(f"{side}:\n{done.stderr[-3000:]}")
                told[side].append(json.loads(done.stdout.strip().splitlines()[-1]))
        return told

    print(f"{platform.machine()}, torch {torch.__version__}, transformers {version('transformers')}\n")
    print(
        "| items | prefixes | way | transformers | ours | ratio | transformers, encoder not counted | ours | ratio | "
        "largest difference |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    for items in arguments.items:
        for beams in arguments.beams:
            told = measure(["transformers", "ours"], items, beams)
            prefixes = int(told["ours"][0]["prefixes"])
            apart = max(run["apart"] for run in told["transformers"])
            whole, alone = (
                [statistics.median(run[what] for run in told[side]) for side in ("transformers", "ours")]
                for what in ("seconds", "alone")
            )
            print(
                f"| {items} | {prefixes} | {beams} beams | {whole[0]:.3g} | {whole[1]:.3g} | "
                f"**{whole[0] / whole[1]:.1f}x** | {alone[0]:.3g} | {alone[1]:.3g} | **{alone[0] / alone[1]:.1f}x** | "
                f"{apart:.1e} |",
                flush=True,
            )
        sides = measure(["encoder", "exact"], items, 1)
        for side, name in (("encoder", "the encoder alone"), ("exact", "every item")):
            seconds = statistics.median(run["seconds"] for run in sides[side])
            print(f"| {items} | {prefixes} | {name} | | {seconds:.3g} | | | | | |", flush=True)


if __name__ == "__main__":
    main()
