"""The graph of the workflow's rules as SVG: layers from sources to the report, drawn without any other program."""

from __future__ import annotations

import re
from html import escape
from itertools import pairwise

Edge = tuple[str, str]

_NODE_HEIGHT, _LAYER_GAP, _NODE_GAP, _PADDING = 34, 40, 26, 12
_CHARACTER = 7.8
_BEND = "|"
"""Marks a bend of a long edge; no rule is named so."""
_EDGE = re.compile(r'^\s*"?([\w.-]+)"?\s*--?>\s*"?([\w.-]+)"?\s*;?\s*(?:\[.*\])?;?\s*$')
_LABEL = re.compile(r'^\s*"?([\w.-]+)"?\s*\[.*?label\s*=\s*"([^"]*)"')


def parse(text: str) -> list[Edge]:
    """The edges of a Mermaid flow chart or of Graphviz text (where labels replace node ids), in order, each once."""
    names: dict[str, str] = {}
    edges: list[Edge] = []
    for line in text.splitlines():
        if found := _EDGE.match(line):
            edges.append((found[1], found[2]))
        elif found := _LABEL.match(line):
            names[found[1]] = found[2].split("\\n")[0]
    return list(dict.fromkeys((names.get(a, a), names.get(b, b)) for a, b in edges))


def reduce(edges: list[Edge]) -> list[Edge]:
    """Without the edges that a longer path implies: the same order of work, far fewer lines."""
    following: dict[str, set[str]] = {}
    for source, target in edges:
        following.setdefault(source, set()).add(target)

    def reaches(start: str, goal: str, seen: set[str]) -> bool:
        for node in following.get(start, set()) - seen:
            seen.add(node)
            if node == goal or reaches(node, goal, seen):
                return True
        return False

    def implied(source: str, target: str) -> bool:
        return any(reaches(other, target, set()) for other in following[source] - {target})

    return [edge for edge in edges if not implied(*edge)]


def layers(edges: list[Edge]) -> list[list[str]]:
    """Nodes by the length of the longest path to them; a source stands right above what needs it first.

    Raises:
        ValueError: the graph has a cycle.
    """
    depth: dict[str, int] = {node: 0 for edge in edges for node in edge}
    for _ in range(len(depth) + 1):
        deeper = {b: depth[a] + 1 for a, b in edges if depth[b] < depth[a] + 1}
        if not deeper:
            break
        depth |= deeper
    else:
        raise ValueError("the rule graph has a cycle")
    for node in depth.keys() - {b for _, b in edges}:
        depth[node] = min(depth[b] for a, b in edges if a == node) - 1
    found: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for node, level in depth.items():
        found[level].append(node)
    return found


def _chains(edges: list[Edge], levels: list[list[str]]) -> list[list[str]]:
    """Every edge as a chain over neighbouring layers; a bend (named by its edge) is put into each layer between."""
    depth = {node: number for number, level in enumerate(levels) for node in level}
    found = []
    for source, target in edges:
        bends = [f"{_BEND}{source}>{target}@{level}" for level in range(depth[source] + 1, depth[target])]
        for level, bend in enumerate(bends, depth[source] + 1):
            levels[level].append(bend)
        found.append([source, *bends, target])
    return found


def _untangle(levels: list[list[str]], chains: list[list[str]]) -> None:
    """Order each layer by the mean place of its neighbours, sweeping down and up (Sugiyama et al. 1981)."""
    links = [pair for chain in chains for pair in pairwise(chain)]
    place = {node: (number + 0.5) / len(level) for level in levels for number, node in enumerate(level)}
    for sweep in range(8):
        down = sweep % 2 == 0
        for level in levels if down else reversed(levels):
            near = {node: [place[a if down else b] for a, b in links if (b if down else a) == node] for node in level}
            level.sort(key=lambda node: sum(near[node]) / len(near[node]) if near[node] else place[node])
            place |= {node: (number + 0.5) / len(level) for number, node in enumerate(level)}


def _width(node: str) -> float:
    return 10.0 if node.startswith(_BEND) else len(node) * _CHARACTER + 26


def _positions(levels: list[list[str]]) -> tuple[dict[str, tuple[float, float]], float]:
    """(centre, top) of every node and bend, each layer centred; and the width of the drawing."""
    widths = [sum(map(_width, level)) + _NODE_GAP * (len(level) - 1) for level in levels]
    total = max(widths) + 2 * _PADDING
    place: dict[str, tuple[float, float]] = {}
    for number, level in enumerate(levels):
        x = (total - widths[number]) / 2
        for node in level:
            place[node] = (x + _width(node) / 2, _PADDING + number * (_NODE_HEIGHT + _LAYER_GAP))
            x += _width(node) + _NODE_GAP
    return place, total


def _path(chain: list[str], place: dict[str, tuple[float, float]]) -> str:
    x, y = place[chain[0]]
    drawn = f"M{x:.1f} {y + _NODE_HEIGHT}"
    for node in chain[1:]:
        above = y + _NODE_HEIGHT
        to_x, y = place[node]
        bend = (y - above) / 2
        drawn += f"C{x:.1f} {above + bend:.1f} {to_x:.1f} {y - bend:.1f} {to_x:.1f} {y}"
        x = to_x
        if node != chain[-1]:
            drawn += f"V{y + _NODE_HEIGHT}"
    return drawn


def svg(text: str) -> str:
    """The graph as inline SVG, coloured by the page; empty where there are no edges."""
    edges = reduce(parse(text))
    if not edges:
        return ""
    levels = layers(edges)
    nodes = [node for level in levels for node in level]
    chains = _chains(edges, levels)
    _untangle(levels, chains)
    place, width = _positions(levels)
    height = 2 * _PADDING + len(levels) * _NODE_HEIGHT + (len(levels) - 1) * _LAYER_GAP
    parts = [
        f'<svg class="graph" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" role="img" '
        f'aria-label="Rule graph: {escape("; ".join(f"{a} to {b}" for a, b in edges), quote=True)}">',
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z"/></marker></defs>',
    ]
    parts += [f'<path class="edge" d="{_path(chain, place)}" marker-end="url(#arrow)"/>' for chain in chains]
    for node in nodes:
        x, y = place[node]
        parts.append(
            f'<rect x="{x - _width(node) / 2:.1f}" y="{y}" width="{_width(node):.1f}" height="{_NODE_HEIGHT}" rx="6"/>'
            f'<text x="{x:.1f}" y="{y + _NODE_HEIGHT / 2 + 4.5:.1f}">{escape(node)}</text>'
        )
    return "".join([*parts, "</svg>"])
