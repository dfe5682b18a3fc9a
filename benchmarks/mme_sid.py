"""MME-SID in three places where the plain form does far more work: scores, item tokens, prefixes of a history.

    OMP_NUM_THREADS=1 python benchmarks/mme_sid.py [--width 1024] [--repeats 5]

The sides of a task give the same numbers: the largest difference is printed, relative to the largest number. Times are
CPU seconds, every side in a process of its own, medians. The plain sides are written here, as the formulas stand in the
paper or as the published code computes them; they use the same weights.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tessera.language.models import LanguageModel
from tessera.language.tokens import Frame
from tessera.recommenders.history_reader import HistoryReader
from tessera.recommenders.item_tokens import CodeBranch, ItemTokens, RawBranch
from tessera.recommenders.score_heads import PopularityGate, ScoreHeads

ITEMS = 12_086
TABLES = (64, 1280, 1280)  # SASRec, image and text, as on Amazon Beauty
LEVELS, CODES = 4, 256

Side = Callable[[], list[Tensor]]


def branches(width: int, items: int = ITEMS) -> list[RawBranch]:
    present = torch.ones(items + 1, dtype=torch.bool)
    return [RawBranch(torch.randn(items + 1, d), present, width, standardize=False) for d in TABLES]


# ---------------------------------------------------------------- scores


def scores(width: int, states: int, train: bool, items: int = ITEMS, device: str = "cpu") -> dict[str, Side]:
    """Loss and gradients (train), or scores, of some states against the catalogue."""
    torch.manual_seed(0)
    raw = [branch.to(device) for branch in branches(width, items)]
    popularity = torch.from_numpy(np.random.default_rng(0).zipf(1.5, items + 1).clip(max=431))
    heads = ScoreHeads(items, width, PopularityGate(popularity, 4, 1.0), width**-0.5).to(device)
    given = torch.randn(states, width).to(device)
    targets = torch.randint(1, items + 1, (states,)).to(device)
    parameters = [*heads.parameters(), *(p for b in raw for p in (b.projection.weight, b.projection.bias))]

    def finish(values: Tensor) -> list[Tensor]:
        if not train:
            return [values.detach()]
        loss = torch.nn.functional.cross_entropy(values[:, 1:], targets - 1, reduction="sum")
        return list(torch.autograd.grad(loss, parameters))

    def plain() -> list[Tensor]:
        # as published: every item is expanded by every projection, and each head makes a matrix of scores
        shares = heads.shares()
        assert shares is not None
        total = shares[:, 0] * (given @ heads.vectors.T)
        for number, branch in enumerate(raw, 1):
            total = total + shares[:, number] * heads.scale * (given @ branch.projection(branch.table).T)
        return finish(total)

    def fused() -> list[Tensor]:
        # states projected down, and one product with the weighted tables side by side
        shares = heads.shares()
        assert shares is not None
        left, right = [given], [shares[:, :1] * heads.vectors]
        for number, branch in enumerate(raw, 1):
            left += [given @ branch.projection.weight, (given @ branch.projection.bias)[:, None]]
            weight = heads.scale * shares[:, number, None]
            right += [weight * branch.table, weight]
        return finish(torch.cat(left, 1) @ torch.cat(right, 1).T)

    def down() -> list[Tensor]:
        return finish(heads.scores(given, raw))

    def mixed() -> list[Tensor]:
        return finish(given @ heads.catalogue(raw).T)

    def ours() -> list[Tensor]:
        return list(torch.autograd.grad(heads.loss(given, targets, raw), parameters))

    constant: list[Tensor] = []

    def evaluated() -> list[Tensor]:
        # mixed item vectors are constants when nothing trains: made once, in the warm-up here
        if not constant:
            constant.append(heads.catalogue(raw).detach())
        return [given @ constant[0].T]

    sides: dict[str, Side] = {
        "expand every item": plain, "mix item vectors": mixed, "project states down, one product": fused,
        "project states down, a product a head": down,
    }  # fmt: skip
    return {**sides, "as training runs": ours} if train else {**sides, "as judged": evaluated}


def multiplications(width: int, states: int) -> dict[str, float]:
    """Multiply-adds of the forward pass."""
    tables = sum(TABLES)
    return {
        "expand every item": ITEMS * tables * width + states * ITEMS * width * (1 + len(TABLES)),
        "mix item vectors": ITEMS * tables * width + states * ITEMS * width,
        "project states down": states * tables * width + states * ITEMS * (width + tables),
        "as judged": states * ITEMS * width,
    }


# ---------------------------------------------------------------- tokens


def tokens(width: int, rows: int, length: int) -> dict[str, Side]:
    """Tokens of a batch of histories, and gradients of their sum; popular items stand in it more than once."""
    torch.manual_seed(0)
    raw = branches(width)
    books = [torch.randn(CODES, width) for _ in range(LEVELS)]
    codes = [CodeBranch(torch.randint(CODES, (ITEMS + 1, LEVELS)), books, width) for _ in raw]
    made = ItemTokens(raw, codes, width, None)
    shares = 1 / np.arange(10, ITEMS + 10)
    drawn = np.random.default_rng(0).choice(ITEMS, (rows, length), p=shares / shares.sum()) + 1
    histories = torch.from_numpy(drawn)
    weights = torch.randn(rows, length, width)
    parameters = [p for name, p in made.named_parameters() if "absent" not in name]

    def finish(found: Tensor) -> list[Tensor]:
        return [found.detach(), *torch.autograd.grad((found * weights).sum(), parameters)]

    def plain() -> list[Tensor]:
        return finish(made(histories.flatten()).view(rows, length, width))

    def unique() -> list[Tensor]:
        once, place = torch.unique(histories, return_inverse=True)
        return finish(made(once)[place])

    return {"a token a position": plain, "a token a different item": unique}


# ---------------------------------------------------------------- prefixes


def prefixes(rows: int, length: int, prompt: int, response: int) -> dict[str, Side]:
    """States after every prefix of histories under a Qwen2 decoder (width 256, 4 layers), and gradients of items."""
    from transformers import Qwen2Config, Qwen2Model

    torch.manual_seed(0)
    config = Qwen2Config(
        hidden_size=256, intermediate_size=768, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=4,
        vocab_size=200, max_position_embeddings=1024,
    )  # fmt: skip
    tower = Qwen2Model(config).eval()
    language = LanguageModel(tower, tower, None, "decoder", 256, 1024, None, torch.device("cpu"))
    before, after = tuple(range(prompt)), tuple(range(100, 100 + response))
    items = torch.randn(rows, length, 256, requires_grad=True)
    weights = torch.randn(rows, length, 256)

    def finish(states: Tensor) -> list[Tensor]:
        return [states.detach(), *torch.autograd.grad((states * weights).sum(), items)]

    def plain() -> list[Tensor]:
        # a row a prefix, padded before the response, the instruction in every row
        mask = torch.arange(length) < torch.arange(1, length + 1)[:, None]
        mask = mask.repeat(rows, 1)
        read = items.repeat_interleave(length, 0)
        start, end = (language.embed(torch.tensor([ids])).expand(len(read), -1, -1) for ids in (before, after))
        seen = torch.cat([mask.new_ones(len(mask), prompt), mask, mask.new_ones(len(mask), response)], 1).long()
        states = tower(
            inputs_embeds=torch.cat([start, read, end], 1), attention_mask=seen,
            position_ids=(seen.cumsum(1) - 1).clamp(min=0), use_cache=False,
        ).last_hidden_state[:, -1]  # fmt: skip
        return finish(states.view(rows, length, -1))

    def packed() -> list[Tensor]:
        return finish(HistoryReader(language, Frame(before, after), "response").after_each(items, empty=False))

    def at_items() -> list[Tensor]:
        return finish(HistoryReader(language, Frame(before, after), "item").after_each(items, empty=False))

    return {"a row a prefix": plain, "packed": packed, "read at the item (other numbers)": at_items}


# ---------------------------------------------------------------- measuring


def apart(found: list[Tensor], plain: list[Tensor]) -> float:
    """The largest difference, relative to the largest number of each tensor."""
    pairs = zip(found, plain, strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-30)) for a, b in pairs)


def tasks(width: int) -> dict[str, tuple[Callable[..., dict[str, Side]], dict[str, Any]]]:
    """Name -> what makes its sides, and with what."""
    found: dict[str, tuple[Callable[..., dict[str, Side]], dict[str, Any]]] = {
        f"scores, {states} states": (scores, {"width": width, "states": states, "train": False})
        for states in (1, 16, 512)
    }
    found |= {
        f"loss and gradients, {states} states": (scores, {"width": width, "states": states, "train": True})
        for states in (16, 2048)
    }
    found[f"item tokens, 64 histories of 20, width {width // 4}"] = (
        tokens, {"width": width // 4, "rows": 64, "length": 20},
    )  # fmt: skip
    for length in (10, 50):
        found[f"prefixes, 4 histories of {length}"] = (
            prefixes, {"rows": 4, "length": length, "prompt": 36, "response": 5},
        )  # fmt: skip
    return found


def measure(task: str, side: str, width: int, repeats: int) -> dict[str, Any]:
    """One side in this process: CPU seconds after a warm-up, the memory that it adds, the distance from plain."""
    torch.set_num_threads(1)
    make, settings = tasks(width)[task]
    sides = make(**settings)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = sides[side]()
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        sides[side]()
        seconds.append(time.process_time() - started)
        if sum(seconds) > 20:
            break
    distance = apart(result, next(iter(sides.values()))()) if "other numbers" not in side else None
    return {"seconds": median(seconds), "memory": memory, "apart": distance}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=1024, help="of the model, in scores")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(*arguments.one, arguments.width, arguments.repeats)))
        return
    print("| task | side | CPU seconds | ratio | memory added, MiB | largest difference |\n|---|---|---|---|---|---|")
    for task, (make, settings) in tasks(arguments.width).items():
        plain = None
        for side in make(**settings):
            command = [sys.executable, __file__, "--one", task, side]
            command += ["--width", str(arguments.width), "--repeats", str(arguments.repeats)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            plain = plain or found["seconds"]
            distance = "" if found["apart"] is None else f"{found['apart']:.1e}"
            row = [task, side, f"{found['seconds']:.3g}", f"{plain / found['seconds']:.1f}x", f"{found['memory']:.0f}"]
            print(f"| {' | '.join([*row, distance])} |", flush=True)
    print("\n| width | states | side | multiply-adds |\n|---|---|---|---|")
    for width in (arguments.width, 4096):
        for states in (1, 16, 512):
            for side, count in multiplications(width, states).items():
                print(f"| {width} | {states} | {side} | {count:.2g} |")


if __name__ == "__main__":
    main()
