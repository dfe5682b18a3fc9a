"""The picture of a plan: nouns and what flows between them, as a Mermaid flow chart.

Nouns that read the same are drawn as one. What nouns read has no loop, whatever rules make them: a run whose item
vectors become a table, the table codes, and the codes another run is a chain here.
"""

from __future__ import annotations

from tessera.plan.graph import Noun, Plan

WORDS = {
    "model": ("language model", "language models"),
    "captions": ("captions", "captions"),
    "embedder": ("embedder", "embedders"),
    "table": ("item table", "item tables"),
    "semantic_ids": ("semantic IDs", "semantic IDs"),
    "run": ("run", "runs"),
    "click_run": ("click model", "click models"),
}
_MOST = 3
"""Names in a node; of more, the number is told."""


def _name(noun: Noun) -> str:
    """What a person calls it: of a run its system, whatever backbone and seed."""
    return noun.name.partition("/")[0]


def groups(plan: Plan) -> dict[Noun, int]:
    """The node of every needed noun: nouns of a kind that read the same nodes share one."""
    numbers: dict[Noun, int] = {}
    keys: dict[tuple[str, frozenset[int], bool], int] = {}
    read_by_others = {read for noun in plan.nouns for read in plan.reads(noun)}
    for noun in plan.nouns:
        reads = frozenset(numbers[read] for read in plan.reads(noun))
        # a run whose vectors others read stands apart from those that are judged alone
        numbers[noun] = keys.setdefault((noun.kind, reads, noun in read_by_others), len(keys))
    return numbers


def _label(nouns: list[Noun]) -> str:
    names = list(dict.fromkeys(map(_name, nouns)))
    singular, plural = WORDS[nouns[0].kind]
    shown = ", ".join(names[:_MOST])
    if len(names) > _MOST:
        shown = f"{', '.join(names[: _MOST - 1])} and {len(names) - _MOST + 1} more"
    return f"{singular if len(names) == 1 else plural}: {shown}"


def flow_chart(plan: Plan) -> str:
    """The chart: one node a line, then one edge a line."""
    nodes = groups(plan)
    members: dict[int, list[Noun]] = {}
    for noun, node in nodes.items():
        members.setdefault(node, []).append(noun)
    clicks = plan.config.task == "ctr"
    labels = {"data": "dataset", **({"samples": "samples"} if clicks else {})}
    labels |= {f"n{node}": _label(nouns) for node, nouns in members.items()} | {"judge": "metrics", "page": "report"}
    edges: list[tuple[str, str]] = [("data", "samples")] if clicks else []
    for noun, node in nodes.items():
        reads = [f"n{nodes[read]}" for read in plan.reads(noun)]
        edges += [(read, f"n{node}") for read in reads]
        first = "samples" if noun.kind == "click_run" else "data"
        edges += [] if reads and noun.kind != "click_run" else [(first, f"n{node}")]
        edges += [(f"n{node}", "judge")] if noun.kind in ("run", "click_run") and _judged(plan, noun) else []
    if any(map(plan.generated, plan.config.experiment.datasets)):
        labels["truth"] = "oracle"
        edges += [("data", "truth"), ("truth", "judge")]
    edges.append(("judge", "page"))
    lines = [f'    {node}["{label}"]' for node, label in labels.items()]
    return "\n".join(["flowchart TB", *lines, *(f"    {a} --> {b}" for a, b in dict.fromkeys(edges))])


def _judged(plan: Plan, noun: Noun) -> bool:
    return noun.kind == "click_run" or any(run.path == noun.name for run in plan.runs)
