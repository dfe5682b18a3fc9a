"""The plan of a config as SVG: layers from the dataset to the report, drawn without any other program."""

from __future__ import annotations

import re
from html import escape
from itertools import pairwise
from textwrap import wrap

import networkx as nx

Edge = tuple[str, str]

_LAYER_GAP, _NODE_GAP, _PADDING, _LINE = 40, 26, 12, 18
_WIDEST = 36
"""Characters of a line of names."""
_KIND = ' class="kind"'
_CHARACTER = 7.8
_BEND = "|"
"""Marks a bend of a long edge; no node is named so."""
_EDGE = re.compile(r"^\s*([\w.-]+)\s*-->\s*([\w.-]+)\s*$")
_LABEL = re.compile(r'^\s*([\w.-]+)\["([^"]*)"\]\s*$')


def parse(text: str) -> tuple[list[Edge], dict[str, str]]:
    """The edges of a Mermaid flow chart in order, each once, and the labels of its nodes."""
    labels: dict[str, str] = {}
    edges: list[Edge] = []
    for line in text.splitlines():
        if match := _EDGE.match(line):
            edges.append((match[1], match[2]))
        elif match := _LABEL.match(line):
            labels[match[1]] = match[2]
    return list(dict.fromkeys(edges)), labels


def _without_loops(edges: list[Edge]) -> nx.DiGraph:
    """The graph of these edges, its nodes in the order in which they are met.

    Raises:
        ValueError: the graph has a cycle.
    """
    graph = nx.DiGraph(edges)
    if not nx.is_directed_acyclic_graph(graph):
        loop = [source for source, _ in nx.find_cycle(graph)]
        raise ValueError(f"the chart has a cycle: {' > '.join([*loop, loop[0]])}")
    return graph


def reduce(edges: list[Edge]) -> list[Edge]:
    """Without the edges that a longer path implies: the same order of work, far fewer lines.

    Raises:
        ValueError: the graph has a cycle.
    """
    reduced = nx.transitive_reduction(_without_loops(edges))
    return [edge for edge in edges if reduced.has_edge(*edge)]


def layers(edges: list[Edge]) -> list[list[str]]:
    """Nodes by the length of the longest path to them; a source stands right above what needs it first.

    Raises:
        ValueError: the graph has a cycle.
    """
    graph = _without_loops(edges)
    depth = {node: level for level, nodes in enumerate(nx.topological_generations(graph)) for node in nodes}
    for node in [node for node, before in graph.in_degree if before == 0]:
        depth[node] = min(depth[after] for after in graph.successors(node)) - 1
    rows: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for node in graph:
        rows[depth[node]].append(node)
    return rows


def _chains(edges: list[Edge], levels: list[list[str]]) -> list[list[str]]:
    """Every edge as a chain over neighbouring layers; a bend (named by its edge) is put into each layer between."""
    depth = {node: number for number, level in enumerate(levels) for node in level}
    chains = []
    for source, target in edges:
        bends = [f"{_BEND}{source}>{target}@{level}" for level in range(depth[source] + 1, depth[target])]
        for level, bend in enumerate(bends, depth[source] + 1):
            levels[level].append(bend)
        chains.append([source, *bends, target])
    return chains


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


def _lines(label: str) -> list[str]:
    """`runs: popular, item_knn` as its kind and the names below it."""
    kind, _, names = label.partition(": ")
    return [kind, *wrap(names, _WIDEST, break_long_words=False, break_on_hyphens=False)]


Boxes = dict[str, tuple[float, float, float, float]]
"""Node or bend -> (centre, top, width, height)."""


def _positions(levels: list[list[str]], lines: dict[str, list[str]]) -> tuple[Boxes, float, float]:
    """Every node and bend, each layer centred; and the width and the height of the drawing."""

    def width(node: str) -> float:
        return max(map(len, lines[node])) * _CHARACTER + 26 if node in lines else 10.0

    def height(node: str) -> float:
        return len(lines[node]) * _LINE + 14 if node in lines else 0.0

    widths = [sum(map(width, level)) + _NODE_GAP * (len(level) - 1) for level in levels]
    total = max(widths) + 2 * _PADDING
    place: Boxes = {}
    top = float(_PADDING)
    for number, level in enumerate(levels):
        x, tallest = (total - widths[number]) / 2, max(map(height, level))
        for node in level:
            # a bend is as tall as its layer, so that its edge runs between the nodes
            tall = height(node) or tallest
            place[node] = (x + width(node) / 2, top + (tallest - tall) / 2, width(node), tall)
            x += width(node) + _NODE_GAP
        top += tallest + _LAYER_GAP
    return place, total, top - _LAYER_GAP + _PADDING


def _path(chain: list[str], place: Boxes) -> str:
    x, top, _, height = place[chain[0]]
    y = top + height
    drawn = f"M{x:.1f} {y:.1f}"
    for node in chain[1:]:
        to_x, to_y, _, height = place[node]
        bend = (to_y - y) / 2
        drawn += f"C{x:.1f} {y + bend:.1f} {to_x:.1f} {to_y - bend:.1f} {to_x:.1f} {to_y:.1f}"
        x, y = to_x, to_y + height
        if node != chain[-1]:
            drawn += f"V{y:.1f}"
    return drawn


def _node(lines: list[str], box: tuple[float, float, float, float]) -> str:
    x, y, width, height = box
    texts = ""
    for number, line in enumerate(lines):
        kind = _KIND if number == 0 and len(lines) > 1 else ""
        middle = y + 7 + _LINE * (number + 0.5)
        texts += f'<tspan x="{x:.1f}" y="{middle + 4.5:.1f}"{kind}>{escape(line)}</tspan>'
    return (
        f'<rect x="{x - width / 2:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="6"/>'
        f"<text>{texts}</text>"
    )


def svg(text: str) -> str:
    """The chart as inline SVG, coloured by the page; empty where there are no edges."""
    arrows, labels = parse(text)
    edges = reduce(arrows)
    if not edges:
        return ""
    levels = layers(edges)
    nodes = [node for level in levels for node in level]
    lines = {node: _lines(labels.get(node, node)) for node in nodes}
    chains = _chains(edges, levels)
    _untangle(levels, chains)
    place, width, height = _positions(levels, lines)
    summary = "; ".join(f"{labels.get(a, a)} to {labels.get(b, b)}" for a, b in edges)
    parts = [
        f'<svg class="graph" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img" '
        f'aria-label="What is made from what: {escape(summary, quote=True)}">',
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z"/></marker></defs>',
    ]
    parts += [f'<path class="edge" d="{_path(chain, place)}" marker-end="url(#arrow)"/>' for chain in chains]
    parts += [_node(lines[node], place[node]) for node in nodes]
    return "".join([*parts, "</svg>"])
