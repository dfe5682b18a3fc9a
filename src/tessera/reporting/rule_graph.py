"""The graph of the workflow's rules as SVG: layers from sources to the report, drawn without any other program."""

from __future__ import annotations

import re
from html import escape

Edge = tuple[str, str]

_NODE_HEIGHT, _LAYER_GAP, _NODE_GAP, _PADDING = 34, 40, 26, 12
_CHARACTER = 7.6
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
    """Nodes by the length of the longest path to them, each layer ordered to keep edges short.

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
    found: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for node, level in depth.items():
        found[level].append(node)
    place: dict[str, float] = {}
    for nodes in found:
        nodes.sort(key=lambda node: _mean([place[a] for a, b in edges if b == node and a in place]))
        place |= {node: (number + 0.5) / len(nodes) for number, node in enumerate(nodes)}
    return found


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.5


def _width(node: str) -> float:
    return len(node) * _CHARACTER + 26


def svg(text: str) -> str:
    """The graph as inline SVG, coloured by the page; empty where there are no edges."""
    edges = reduce(parse(text))
    if not edges:
        return ""
    levels = layers(edges)
    widths = [sum(map(_width, level)) + _NODE_GAP * (len(level) - 1) for level in levels]
    total = max(widths) + 2 * _PADDING
    place: dict[str, tuple[float, float]] = {}
    for number, level in enumerate(levels):
        x = (total - widths[number]) / 2
        for node in level:
            place[node] = (x + _width(node) / 2, _PADDING + number * (_NODE_HEIGHT + _LAYER_GAP))
            x += _width(node) + _NODE_GAP
    height = 2 * _PADDING + len(levels) * _NODE_HEIGHT + (len(levels) - 1) * _LAYER_GAP
    parts = [
        f'<svg class="graph" viewBox="0 0 {total:.0f} {height}" width="{total:.0f}" role="img" '
        f'aria-label="Rule graph: {escape("; ".join(f"{a} to {b}" for a, b in edges), quote=True)}">',
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z"/></marker></defs>',
    ]
    for source, target in edges:
        (x1, y1), (x2, y2) = place[source], place[target]
        y1 += _NODE_HEIGHT
        bend = (y2 - y1) / 2
        curve = f"M{x1:.1f} {y1}C{x1:.1f} {y1 + bend:.1f} {x2:.1f} {y2 - bend:.1f} {x2:.1f} {y2 - 2}"
        parts.append(f'<path class="edge" d="{curve}" marker-end="url(#arrow)"/>')
    for node, (x, y) in place.items():
        parts.append(
            f'<rect x="{x - _width(node) / 2:.1f}" y="{y}" width="{_width(node):.1f}" height="{_NODE_HEIGHT}" rx="6"/>'
            f'<text x="{x:.1f}" y="{y + _NODE_HEIGHT / 2 + 4.5:.1f}">{escape(node)}</text>'
        )
    return "".join([*parts, "</svg>"])
