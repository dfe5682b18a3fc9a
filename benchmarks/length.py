"""Backbones over the length of histories: CPU seconds and memory of a training step.

Every backbone has its default shape but for its length, dropout 0.2 and cross-entropy over a catalogue; a step has
about the same number of targets at every length. On one thread, the median of several steps, each backbone and length
in a process of its own.

    python benchmarks/length.py --items 3000 --lengths 50 200 1000 4000 --plot benchmarks/results/length.svg
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
import time
from pathlib import Path

KINDS = ("sasrec", "gru4rec", "mamba", "filter", "hstu")


def measure(kind: str, length: int, items: int, targets: int, steps: int) -> dict[str, float]:
    """CPU seconds of a step (median) and peak memory of the process in MiB."""
    import torch

    from tessera.settings.kinds import implementation, settings_class

    torch.set_num_threads(1)
    torch.manual_seed(0)
    settings = settings_class("backbones", kind)(max_length=length)
    backbone = implementation(settings)(settings).train()
    vectors = torch.nn.Parameter(torch.randn(items + 1, settings.dim) * 0.02)
    optimiser = torch.optim.Adam([*backbone.parameters(), vectors], 1e-3)
    rows = max(1, targets // length)
    seconds = []
    for _ in range(steps):
        histories = torch.randint(1, items + 1, (rows, length + 1))
        start = time.process_time()
        made = backbone.examples(histories, vectors)
        loss = torch.nn.functional.cross_entropy(made.states @ vectors[1:].T, made.targets - 1)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        seconds.append(time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": statistics.median(seconds[1:]), "targets": rows * length, "peak_mib": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=3000)
    parser.add_argument("--targets", type=int, default=1600, help="about so many a step")
    parser.add_argument("--lengths", type=int, nargs="+", default=[50, 200, 1000, 4000])
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one[0], int(args.one[1]), args.items, args.targets, args.steps)))
        return
    print(
        f"{platform.processor() or platform.machine()}, one thread, {args.items:,} items, {time.strftime('%Y-%m-%d')}\n"
    )
    print("| backbone | length | targets a step | CPU s a step | us a target | peak MiB |\n|---|---|---|---|---|---|")
    curves: dict[str, list[tuple[int, float]]] = {}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    for kind in KINDS:
        for length in args.lengths:
            same = [f"--items={args.items}", f"--targets={args.targets}", f"--steps={args.steps}"]
            command = [sys.executable, __file__, *same, "--one", kind, str(length)]
            done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            row = json.loads(done.stdout)
            each = row["seconds"] / row["targets"] * 1e6
            curves.setdefault(kind, []).append((length, each))
            cost = f"{row['seconds']:.4f} | {each:.1f} | {row['peak_mib']:.0f}"
            print(f"| {kind} | {length} | {row['targets']:,} | {cost} |", flush=True)
    if args.plot:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        for kind, points in curves.items():
            axes.plot(*zip(*points, strict=True), marker="o", label=kind)
        axes.set(xlabel="length of a history", ylabel="CPU us a target", xscale="log", yscale="log")
        axes.legend()
        figure.savefig(args.plot)


if __name__ == "__main__":
    main()
