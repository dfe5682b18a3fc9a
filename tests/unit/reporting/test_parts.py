"""Rule graph, costs, pictures, samples and bins."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from reporting_world import ORDER, metric_files

from tessera.reporting import plots, rule_graph
from tessera.reporting.costs import read_costs
from tessera.reporting.pictures import LARGEST, Pictures
from tessera.reporting.ranking import load
from tessera.reporting.ranking_runs import entries
from tessera.reporting.samples import Catalogue, sample_items, sample_users

MERMAID = """flowchart TB
    a["runs: popular, item_knn and 2 more"]
    b["item table: latent"]
    a --> b
    b --> c
    a --> c
    d --> c
    a --> b
"""
EDGES = [("a", "b"), ("b", "c"), ("a", "c"), ("d", "c")]


def test_edges_and_labels() -> None:
    labels = {"a": "runs: popular, item_knn and 2 more", "b": "item table: latent"}
    assert rule_graph.parse(MERMAID) == (EDGES, labels)


def test_implied_edges_are_left_out() -> None:
    assert rule_graph.reduce(EDGES) == [("a", "b"), ("b", "c"), ("d", "c")]


def test_sources_stand_right_above_their_use() -> None:
    assert rule_graph.layers(EDGES) == [["a"], ["b", "d"], ["c"]]


def boxes(drawn: ElementTree.Element) -> list[dict[str, float]]:
    return [{k: float(r.get(k, 0)) for k in ("x", "y", "width", "height")} for r in drawn.iter("rect")]


def test_the_drawing_is_valid_and_nothing_overlaps() -> None:
    more = "    b --> e\n    e --> f\n    f --> g\n    a2 --> g\n    c --> g\n"
    text = MERMAID + '    g["embedders: <bad>, & worse"]\n' + more
    drawn = ElementTree.fromstring(rule_graph.svg(text))
    found = boxes(drawn)
    assert len(found) == 8
    for one in found:
        for other in found:
            beside = one["x"] + one["width"] <= other["x"] or other["x"] + other["width"] <= one["x"]
            above = one["y"] + one["height"] <= other["y"] or other["y"] + other["height"] <= one["y"]
            assert one is other or beside or above
    paths = [p for p in drawn.iter("path") if p.get("class") == "edge"]
    assert len(paths) == len(rule_graph.reduce(rule_graph.parse(text)[0]))
    words = [line.text for line in drawn.iter("tspan")]
    assert {"runs", "popular, item_knn and 2 more", "item table", "latent", "<bad>, & worse", "c"} <= set(words)
    assert rule_graph.svg("") == ""


def test_lines_of_text_stand_inside_their_box() -> None:
    long = ", ".join(f"system_{number}" for number in range(9))
    drawn = ElementTree.fromstring(rule_graph.svg(f'    a["runs: {long}"]\n    a --> b\n'))
    (first, *_) = boxes(drawn)
    heights = [float(line.get("y", 0)) for line in next(iter(drawn.iter("text"))).iter("tspan")]
    assert len(heights) > 3
    assert all(first["y"] < y < first["y"] + first["height"] for y in heights)


def test_a_name_is_never_broken() -> None:
    """Neither at a hyphen, where its halves would read as two names, nor where it is longer than a line."""
    names = ["popular-recent", "bert4rec-bce", "item-knn", "a-name-that-is-longer-than-any-line-of-a-box"]
    drawn = ElementTree.fromstring(rule_graph.svg(f'    a["runs: {", ".join(names)}"]\n    a --> b\n'))
    kind, *lines = [line.text or "" for line in next(iter(drawn.iter("text"))).iter("tspan")]
    assert kind == "runs"
    assert len(lines) > 2
    assert [name for line in lines for name in line.replace(",", "").split()] == names


def test_a_cycle_is_refused() -> None:
    loop = [("x", "a"), ("a", "b"), ("b", "c"), ("c", "a")]
    for refused in (rule_graph.layers, rule_graph.reduce):
        with pytest.raises(ValueError, match=r"the chart has a cycle: a > b > c > a"):
            refused(loop)
    with pytest.raises(ValueError, match="a > a"):
        rule_graph.svg("a --> a")


@pytest.mark.parametrize("seed", range(6))
def test_reduction_and_layers_by_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = [f"n{number}" for number in rng.permutation(12)]
    edges = [(names[a], names[b]) for a in range(12) for b in range(a + 1, 12) if rng.random() < 0.3]
    edges = [edges[place] for place in rng.permutation(len(edges))]

    def longest(node: str, kept: list[tuple[str, str]]) -> int:
        return max((1 + longest(source, kept) for source, target in kept if target == node), default=0)

    def reached(node: str, kept: list[tuple[str, str]]) -> set[str]:
        after = {target for source, target in kept if source == node}
        return after.union(*(reached(target, kept) for target in after))

    reduced = rule_graph.reduce(edges)
    assert reduced == [edge for edge in edges if edge in set(reduced)]  # in their order
    for node in names:
        assert reached(node, reduced) == reached(node, edges)
    for edge in reduced:
        assert edge[1] not in reached(edge[0], [other for other in reduced if other != edge])  # none is left over
    sources = {source for source, _ in edges} - {target for _, target in edges}
    for level, nodes in enumerate(rule_graph.layers(edges)):
        for node in nodes:
            if node in sources:
                assert level == min(longest(target, edges) for source, target in edges if source == node) - 1
            else:
                assert level == longest(node, edges)


def test_costs_are_summed_by_rule_and_dataset(results: Path, tmp_path: Path) -> None:
    found = {(cost.rule, cost.dataset): cost for cost in read_costs(results / "benchmarks", ["bazaar"])}
    train = found["train", "bazaar"]
    assert (train.jobs, train.seconds, train.longest, train.memory) == (2, 60.0, 31.0, 660.5)
    assert found["evaluate", "bazaar"].memory is None
    (tmp_path / "report.tsv").write_text("s\tmax_rss\n1.5\t-\n")
    (tmp_path / "other.tsv").write_text("nonsense\n1\n")
    (tmp_path / "killed.tsv").write_text("s\tmax_rss\n")
    (tmp_path / "full.tsv").write_text("")
    only = read_costs(tmp_path, [])
    assert [(cost.rule, cost.dataset, cost.seconds) for cost in only] == [("report", "", 1.5)]


def test_costs_of_final_runs_are_apart(tmp_path: Path) -> None:
    for place in ("train/shop/id/one", "train/shop-final/id/one", "train/other/shop/one", "prepare/shop"):
        path = tmp_path / f"{place}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("s\tmax_rss\n10\t1\n")
    found = {(cost.rule, cost.dataset): cost.jobs for cost in read_costs(tmp_path, ["shop"])}
    assert found == {
        ("train", "shop"): 1, ("train", "shop-final"): 1, ("prepare", "shop"): 1,
        ("train", ""): 1,  # a system that has the name of a dataset
    }  # fmt: skip


def test_thumbnails_are_small_and_flat(tmp_path: Path) -> None:
    Image.new("RGBA", (400, 200), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.effect_noise((900, 900), 80).convert("RGB").save(tmp_path / "noise.jpg")
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    pictures = Pictures(str(tmp_path))
    for name in ("clear.png", "noise.jpg"):
        uri = pictures.uri(name)
        assert uri is not None
        data = base64.b64decode(uri.partition(",")[2])
        assert len(data) < 12_000
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        assert max(picture.size) == LARGEST
        if name == "clear.png":
            assert picture.size == (96, 48)
            assert picture.getpixel((5, 5)) == (255, 255, 255)  # transparent becomes white
    assert pictures.uri("broken.png") is None
    assert pictures.uri("absent.png") is None
    assert pictures.uri(None) is None
    assert Pictures("no/such/folder").uri("clear.png") is None


def test_a_relative_picture_folder_below_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "posters").mkdir()
    Image.new("RGB", (10, 10)).save(tmp_path / "posters" / "1.png")
    monkeypatch.setenv("TESSERA_DATA", str(tmp_path))
    assert Pictures("posters").uri("1.png")


def test_sample_items_span_the_popularity_order(results: Path) -> None:
    catalogue = Catalogue(results / "bazaar" / "data")
    cards = sample_items(catalogue, 5)
    counts = [card.count for card in cards]
    assert counts == sorted(counts, reverse=True)
    assert len({card.item for card in cards}) == 5
    assert len(sample_items(catalogue, 1000)) == 40
    assert cards[0].attributes[0] == ("category", "lamp")
    assert all(len(text) <= 180 for card in cards for _, text in card.attributes)


def test_sample_users_show_history_target_and_lists(results: Path) -> None:
    data = results / "bazaar" / "data"
    shown = [entry for entry in entries(metric_files(results), ORDER) if entry.name in ORDER]
    cards = sample_users(Catalogue(data), data / "users.parquet", shown, 4)
    assert len(cards) == 4
    leader_ranks = [card.lists[-1].rank for card in cards]
    assert leader_ranks == sorted(leader_ranks)
    for card in cards:
        assert [made.run for made in card.lists] == ["popular", "id/sasrec", "id/gru4rec", "semantic/sasrec"]
        for made in card.lists:
            for item, hit in made.items:
                assert hit == (item.item == card.target.item)
    assert sample_users(Catalogue(data), data / "users.parquet", [], 4) == []


def test_length_bins_cover_every_user() -> None:
    generator = np.random.default_rng(0)
    for scale in (1, 8, 300):
        lengths = generator.geometric(1 / (4 * scale), 2000) + 4
        counts = {int(v): int(n) for v, n in zip(*np.unique(lengths, return_counts=True), strict=True)}
        bins = plots.length_bins(counts)
        assert sum(n for _, n in bins) == 2000
        assert len(bins) <= 22
        assert [name for name, _ in bins] == sorted((name for name, _ in bins), key=plots.group_order)
    assert plots.length_bins({5: 3}) == [("5", 3)]


def test_every_seed_says_where_it_ends(results: Path) -> None:
    table = load(results / "tables" / "bazaar.parquet", metric_files(results), ORDER)
    curves = {name: [(seed, epoch, seed + epoch / 10) for seed in (1, 2) for epoch in (1, 2)] for name in ORDER[1:3]}
    plot = plots.training(table, "NDCG@10", curves, "loss")
    assert plot is not None
    ends = [f"{name}, seed {seed}, ends at {seed}.2000" for name in ORDER[1:3] for seed in (1, 2)]
    assert sorted(plot.description.split("; ")) == sorted(ends)


def test_plots_say_their_values() -> None:
    drawn = plots.popularity([50, 20, 0], 3)
    assert drawn is not None
    assert "item of rank 1: 50 interactions in train" in drawn.svg
    assert drawn.standalone().count("var(") == 0
    assert plots.popularity([], 0) is None
    assert plots.lengths({}) is None
    assert plots.popularity([4], 1) is not None
