"""What one GPU gives: training, judging, language passes, decoding, quantising, scoring, each beside its plain form.

    python benchmarks/gpu.py --minutes 6 --out FOLDER

The program ends within its minutes. Each row is written to FOLDER/gpu.md and FOLDER/gpu.jsonl as soon as it is there;
one that fails (no memory, an error, too slow) is a row that says so, and those that the time did not reach stand at
the end. Rows run in a process of their own, which is replaced when a row ends it or does not come back. Sections take
turns by their share of the time, and what one leaves goes to rows that were put off. Without CUDA, or with
`--device cpu`, sizes are a tenth or less: that is for testing this program, and its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import queue
import shlex
import signal
import subprocess
import sys
import threading
import time
import warnings
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MARGIN = 3.0
"""Seconds before the end at which nothing runs any more."""
AGAIN = 20.0
"""Seconds that another process must have left to be worth its start."""
COLUMNS = [
    "section", "case", "side", "rate", "unit/s", "ratio to plain", "ms a step", "bare step ms", "kernels ms",
    "host's share", "share of peak", "peak GiB", "note",
]  # fmt: skip


# ---------------------------------------------------------------- the process that measures


def say(**told: Any) -> None:
    """A line to the process that writes."""
    sys.__stdout__.write(json.dumps(told) + "\n")  # type: ignore[union-attr]
    sys.__stdout__.flush()  # type: ignore[union-attr]


def describe(device: Any) -> dict[str, str]:
    """Card, driver, versions."""
    import torch

    said = {"machine": f"{platform.machine()}, {os.cpu_count()} CPU cores, Python {platform.python_version()}"}
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory / 2**30
        said["card"] = f"{torch.cuda.get_device_name(device)}, {memory:.0f} GiB"
        command = ["nvidia-smi", "--query-gpu=driver_version,clocks.max.sm,power.limit", "--format=csv,noheader"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
            said["driver"] = done.stdout.strip() or "unknown"
        except (OSError, subprocess.TimeoutExpired):
            said["driver"] = "unknown"
    else:
        said["card"] = "no GPU: a tenth of the sizes or less, one thread, only to test the program"
    packages = []
    for name in ("transformers", "peft", "triton", "numpy"):
        try:
            packages.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            packages.append(f"no {name}")
    said["versions"] = f"torch {torch.__version__}, CUDA {torch.version.cuda}, {', '.join(packages)}"
    return said


def measure(arguments: argparse.Namespace) -> None:
    """Rows until the time is over; those of `--done` were measured before."""
    sys.stdout = sys.stderr  # what libraries print
    warnings.simplefilter("ignore")
    import torch

    import device_timing as timing
    from gpu_rows import SECTIONS, Place, all_rows
    from tessera.training.machine import pick_device

    device = pick_device(arguments.device)
    tiny = device.type == "cpu"
    if tiny:
        torch.set_num_threads(1)
    place = Place(device, tiny, 0.05 if tiny else 0.6, not arguments.no_profile)
    rows = [row for row in all_rows() if not arguments.sections or row.section in arguments.sections]
    peak = timing.peak_flops(device)
    say(head=describe(device), plan=[[row.section, row.case, row.side, row.unit] for row in rows])
    done = {int(number) for number in arguments.done.split(",") if number}
    whole = arguments.end - arguments.began

    def attempt(number: int, until: float) -> bool:
        """Measure a row unless it may not end in time."""
        row = rows[number]
        cost = min(row.cost, 1.0) if tiny and row.cost < 30 else row.cost
        if time.time() + cost > until:
            return False
        done.add(number)
        say(begin=number, limit=row.limit)
        timing.fresh(device)
        if device.type == "cuda":
            torch.use_deterministic_algorithms(row.deterministic)
        told: dict[str, Any] = {"error": "", "plain": row.plain, "deterministic": row.deterministic}
        broken = False
        try:
            found = row.run(place)
            told |= {
                "rate": found.rate, "seconds": found.seconds, "bare": found.bare, "kernels": found.kernels,
                "flops": found.flops, "note": found.note, "top": found.top,
                "share": found.flops / found.seconds / peak if found.flops and peak else None,
            }  # fmt: skip
        except Exception as error:
            kind = type(error).__name__
            told["error"] = f"{kind}: {' '.join(str(error).split())[:300]}"
            # after most errors of a kernel nothing runs any more in this process
            broken = device.type == "cuda" and "OutOfMemory" not in kind and "CUDA" in str(error)
            print(f"{row.section}, {row.case}, {row.side}: {told['error']}", flush=True)
            if "OutOfMemory" not in kind:
                import traceback

                traceback.print_exc()
        told["gib"] = None if broken else timing.peak_gib(device)
        say(row=number, **told)
        if broken:
            os._exit(3)
        return True

    until = float(arguments.began)
    shares = {section: share for section, share in SECTIONS.items() if any(row.section == section for row in rows)}
    for section, share in shares.items():
        until = min(until + share / sum(shares.values()) * whole, arguments.end)
        numbers = [number for number, row in enumerate(rows) if row.section == section and number not in done]
        for number in numbers:
            attempt(number, until)
    for number in range(len(rows)):
        if number not in done:
            attempt(number, arguments.end)
    say(end=True)
    os._exit(0)  # threads of compilers and profilers are not waited for


# ---------------------------------------------------------------- the process that writes


class Report:
    """The table and its lines, written as they come."""

    def __init__(self, folder: Path, command: str, minutes: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.table, self.lines = folder / "gpu.md", folder / "gpu.jsonl"
        self.lines.write_text("", encoding="utf-8")
        self.command, self.minutes = command, minutes
        self.plan: list[list[str]] = []
        self.plain: dict[tuple[str, str], float] = {}
        self.written: set[int] = set()

    def start(self, head: dict[str, str], plan: list[list[str]]) -> None:
        """The head of the table; again for a later process, which changes nothing."""
        if self.plan:
            return
        self.plan = plan
        said = [
            "# One GPU", "", f"{datetime.now(UTC):%Y-%m-%d}; {head['card']}; driver {head.get('driver', 'none')}; "
            f"{head['versions']}; {head['machine']}.", "", f"    {self.command}", "",
            "A step's time is between device events after a warm-up, host and device side by side. Training is timed "
            "through the library's trainer (batches made, loss read); `bare step` is the same model, loss and update "
            "on batches that lie on the device; `kernels` is what the device works of a bare step (of any step in "
            "other sections), `host's share` the part of the trainer's (or whole) step in which it does not. "
            "`share of peak`: operations of products and attentions that the side executes, as torch counts them, over "
            "the card's dense bfloat16 peak. `ratio` is to the plain form of the same case. Training is deterministic "
            "as the library sets it unless the case says otherwise; `CUBLAS_WORKSPACE_CONFIG` is the same in all rows. "
            "Memory is the most that tensors took, model and optimiser included.", "",
            f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}",
        ]  # fmt: skip
        self.table.write_text("\n".join(said) + "\n", encoding="utf-8")
        self._line({"head": {**head, "command": self.command, "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"}})

    def row(self, number: int, told: dict[str, Any]) -> None:
        """One row, measured or not."""
        section, case, side, unit = self.plan[number]
        self.written.add(number)
        rate, ratio = told.get("rate"), None
        if told.get("plain") and rate:
            self.plain[section, case] = rate
        elif rate and (section, case) in self.plain:
            ratio = rate / self.plain[section, case]
        kernels, seconds = told.get("kernels"), told.get("seconds")
        host = max(0.0, 1 - kernels / seconds) if kernels and seconds else None
        self._line({"section": section, "case": case, "side": side, "unit": unit, **told, "ratio": ratio, "host": host})
        milliseconds = [shown(told[name], 1000) if told.get(name) else "" for name in ("seconds", "bare", "kernels")]
        cells = [
            section, case, side, f"{rate:,.0f}" if rate and rate >= 100 else shown(rate), unit,
            f"{ratio:.2f}x" if ratio else "", *milliseconds,
            f"{host:.0%}" if host is not None else "", f"{told['share']:.1%}" if told.get("share") else "",
            shown(told.get("gib")), told.get("error") or told.get("note", ""),
        ]  # fmt: skip
        with self.table.open("a", encoding="utf-8") as file:
            file.write(f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |\n")

    def rest(self, reason: str) -> None:
        """Rows that were not reached."""
        for number in range(len(self.plan)):
            if number not in self.written:
                self.row(number, {"error": reason})

    def note(self, text: str) -> None:
        """A sentence below the table."""
        with self.table.open("a", encoding="utf-8") as file:
            file.write(f"\n{text}\n")

    def _line(self, told: dict[str, Any]) -> None:
        with self.lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps(told) + "\n")


def shown(value: float | None, times: float = 1.0) -> str:
    """Three digits; nothing for None."""
    return "" if value is None else f"{value * times:.3g}"


class Worker:
    """A process that measures, and what it says."""

    def __init__(self, arguments: list[str], log: Path) -> None:
        environment = {
            **os.environ, "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            # a row takes what the one before it gave back, whatever its shapes
            "PYTORCH_CUDA_ALLOC_CONF": os.environ.get("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True"),
        }  # fmt: skip
        self.log = log.open("a", encoding="utf-8")
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "gpu.py"), *arguments], stdout=subprocess.PIPE, stderr=self.log, text=True,
            env=environment, start_new_session=True,
        )  # fmt: skip
        self.said: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                self.said.put(json.loads(line))
        self.said.put(None)

    def stop(self) -> None:
        """End it and what it started (compilers)."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            self.process.kill()
        self.process.wait()
        self.log.close()


def supervise(arguments: argparse.Namespace) -> int:
    """Start processes that measure, write what they say, end them in time."""
    began = time.time()
    end = began + 60 * arguments.minutes - MARGIN
    report = Report(arguments.out, shlex.join(["python", *sys.argv]), arguments.minutes)
    done: set[int] = set()
    profile, finished, starts = True, False, 0
    while not finished and (not starts or end - time.time() > AGAIN):
        starts += 1
        worker = Worker(
            ["--worker", "--device", arguments.device, "--began", str(began), "--end", str(end),
             "--sections", *arguments.sections, "--done", ",".join(map(str, sorted(done))),
             *([] if profile else ["--no-profile"])],
            arguments.out / "gpu.log",
        )  # fmt: skip
        running: tuple[int, float, float] | None = None
        fruitful = False
        while True:
            now = time.time()
            late = running is not None and now - running[1] > running[2]
            if now > end or late:
                break
            try:
                told = worker.said.get(timeout=0.2)
            except queue.Empty:
                continue
            if told is None:
                break
            if "plan" in told:
                report.start(told["head"], told["plan"])
            elif "begin" in told:
                running = told["begin"], time.time(), told["limit"]
                done.add(told["begin"])
                fruitful = True
            elif "row" in told:
                report.row(told.pop("row"), told)
                running = None
            elif "end" in told:
                finished = True
                break
        worker.stop()
        if running is not None:
            spent = time.time() - running[1]
            reason = "given up: the time was over" if time.time() > end else f"given up after {spent:.0f} s"
            if worker.process.returncode not in (0, -signal.SIGKILL):
                reason = f"the process ended with {worker.process.returncode}; see gpu.log"
            elif spent > running[2]:
                profile = False  # the likeliest of what may not come back
            report.row(running[0], {"error": reason})
        if not fruitful and not finished:
            break
    if not report.plan:
        tail = (arguments.out / "gpu.log").read_text(encoding="utf-8")[-3000:]
        print(f"nothing was measured:\n{tail}", file=sys.stderr)
        return 1
    report.rest("not reached in time")
    report.note(f"{time.time() - began:.0f} s of {60 * arguments.minutes:.0f}; {starts} processes.")
    return 0


def main() -> None:
    """Write, or measure where this is the other process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=6.0, help="the program ends within them")
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="folder of gpu.md, gpu.jsonl and gpu.log")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--sections", nargs="*", default=[], help="these alone: training, evaluation, language, ...")
    for name in ("--worker", "--no-profile"):
        parser.add_argument(name, action="store_true", help=argparse.SUPPRESS)
    for name in ("--began", "--end"):
        parser.add_argument(name, type=float, help=argparse.SUPPRESS)
    parser.add_argument("--done", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        measure(arguments)
    else:
        sys.exit(supervise(arguments))


if __name__ == "__main__":
    main()
