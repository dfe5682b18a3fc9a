"""A small results/ tree made through the real artifact writers and the real judge: what the reporting tests read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tessera.artifacts.codes import Part, SemanticIds, write_codes
from tessera.artifacts.files import read_json, write_json, write_text
from tessera.artifacts.tables import INTERACTIONS, write_item_table, write_table
from tessera.evaluation.atlas import make_atlas
from tessera.evaluation.judge import summarize
from tessera.evaluation.representations import diagnose
from tessera.evaluation.spectrum import describe_spectrum
from tessera.quantization.conflicts import resolve
from tessera.quantization.health import describe_health
from tessera.settings.evaluation import Evaluation

USERS, ITEMS = 80, 40
EVIL = "<script>alert(\"title\")</script></script><img src=x onerror=alert(2)> & 'quoted' {{ braces }}"
EVIL_USER = "</script><b>user</b>"

# system, recommender, seeds, and how far up it moves the target
RUNS = [
    ("popular", "popular", (0,), 0.0),
    ("id", "sasrec", (1, 2, 3), 1.0),
    ("id", "gru4rec", (1, 2, 3), 0.8),
    ("semantic", "sasrec", (1, 2, 3), 2.2),
    ("oracle", "oracle", (0,), 4.0),
]
ORDER = ["popular/popular", "id/sasrec", "id/gru4rec", "semantic/sasrec"]


def popularity() -> np.ndarray:
    """(items + 1,) training counts; the last two items are cold."""
    counts = np.concatenate([[0], np.ceil(60 / np.arange(1, ITEMS + 1)).astype(np.int64)])
    counts[-2:] = 0
    return counts


def _pictures(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for item in range(1, ITEMS + 1):
        colour = tuple(int(c) for c in np.random.default_rng(item).integers(0, 255, 3))
        Image.new("RGB", (64, 64), colour).save(folder / f"{item:03d}.png")


def _dataset(results: Path, name: str) -> None:
    data = results / name / "data"
    generator = np.random.default_rng(5)
    rows = []
    for user in range(1, USERS + 1):
        length = int(generator.integers(4, 30))
        items = generator.permutation(ITEMS)[:length] + 1
        for position, item in enumerate(items):
            split = "test" if position == length - 1 else "valid" if position == length - 2 else "train"
            rows.append((user, int(item), 1_600_000_000 + 86_400 * position, position, 4.0, split))
    columns = list(zip(*rows, strict=True))
    table = pa.table([pa.array(c, f.type) for c, f in zip(columns, INTERACTIONS, strict=True)], schema=INTERACTIONS)
    write_table(data / "interactions.parquet", table, "interactions")
    _pictures(results / name / "raw" / "images")
    titles = [EVIL if i == 1 else None if i == 2 else f"Thing {i} – größer" for i in range(1, ITEMS + 1)]
    items_table = pa.table(
        {
            "item": pa.array(range(1, ITEMS + 1), pa.int32()),
            "raw_id": [f"{i:03d}" for i in range(1, ITEMS + 1)],
            "title": pa.array(titles, pa.string()),
            "attributes": pa.array(
                [[("category", "lamp"), ("description", EVIL if i < 4 else "a lamp " * 30)] for i in range(ITEMS)],
                pa.map_(pa.string(), pa.string()),
            ),
            "image": [None if i == 3 else f"{i:03d}.png" for i in range(1, ITEMS + 1)],
        }
    )
    write_table(data / "items.parquet", items_table, "items", image_root=str(results / name / "raw" / "images"))
    users = pa.table(
        {
            "user": pa.array(range(1, USERS + 1), pa.int32()),
            "raw_id": [EVIL_USER if u == 1 else f"user-{u}" for u in range(1, USERS + 1)],
        }
    )
    write_table(data / "users.parquet", users, "users")
    _stats(data, len(rows))


def _stats(data: Path, rows: int) -> None:
    write_json(
        data / "stats.json",
        {
            "counts": {
                "users": USERS,
                "items": ITEMS,
                "interactions": rows,
                "train": rows - 160,
                "valid": 80,
                "test": 80,
            },
            "funnel": [
                {"step": "read", "interactions": rows + 300, "users": 120, "items": 60},
                {"step": "duplicates", "interactions": rows + 280, "users": 120, "items": 60},
                {"step": "core", "interactions": rows, "users": USERS, "items": ITEMS},
            ],
            "rejected": {"rows": 12, "share": 0.004, "reasons": {"not JSON": 9, "no <user>": 3}},
            "lengths": {"4": 3, "10": 20, "20": 12},
            "popularity": [60, 30, 20, 15, 12, 10, 9, 8],
            "tie_share": 0.01,
            "cold_test_targets": 3,
            "text_share": 0.97,
            "image_share": 0.96,
            "period": [1_600_000_000, 1_602_000_000],
        },
    )


def _run(
    folder: Path, system: str, recommender: str, seed: int, lift: float, settings: Evaluation, repeats: int
) -> None:
    generator = np.random.default_rng((seed, len(system), len(recommender)))
    shared = np.random.default_rng(9)
    targets = shared.integers(1, ITEMS + 1, USERS)
    lengths = shared.integers(2, 30, USERS)
    difficulty = shared.normal(0, 1, USERS)
    place = 1 / (1 + np.exp(lift - 1 - difficulty - generator.normal(0, 0.4, USERS)))
    ranks = 1 + np.round(place * (ITEMS - 1) * 2) / 2
    lists = [list((np.arange(20) * (1 + seed) + user) % ITEMS + 1) for user in range(USERS)]
    for user in range(USERS):
        if ranks[user] <= 20:
            lists[user][int(ranks[user]) - 1] = int(targets[user])
    counts = popularity()
    cold = counts[targets] == 0
    repeat = np.arange(USERS) < repeats
    if settings.mask_seen and settings.repeat_targets != "unmasked":
        ranks[repeat] = np.inf
    table = pa.table(
        {
            "user": pa.array(range(1, USERS + 1), pa.int32()),
            "item": pa.array(targets, pa.int32()),
            "rank": ranks,
            "score": pa.array(-place, pa.float32()),
            "candidates": pa.array(np.full(USERS, ITEMS), pa.int32()),
            "history_length": pa.array(lengths, pa.int32()),
            "popularity": pa.array(counts[targets], pa.int32()),
            "repeat": repeat,
            "cold_rank": pa.array(np.where(cold, np.ceil(ranks / 10), np.nan), from_pandas=True),
            "cold_candidates": pa.array(np.where(cold, ITEMS // 10, 0), pa.int32()),
            "recommended": pa.array(lists, pa.list_(pa.int32())),
        }
    )
    # rows in any order: readers go by id
    table = table.take(np.random.default_rng(seed).permutation(USERS))
    write_table(folder / "evaluation.parquet", table, "evaluation")
    described = {"system": system, "recommender": recommender, "seed": seed}
    write_json(
        folder / "metrics.json",
        summarize(table, settings, counts, "full", **described, seconds=0.2, trained=system != "popular"),
    )
    if system not in ("popular", "oracle"):
        lines = [
            {"epoch": e, "loss": 4 / e + seed / 50, "seconds": 1.5, "targets_per_second": 15_000.0}
            | ({"NDCG@10": 0.1 * (1 - 1 / e) + lift / 50, "Hit@10": 0.2} if e % 2 == 0 else {})
            for e in range(1, 9)
        ]
        write_text(folder / "history.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def _tables(results: Path, name: str) -> None:
    """Two item tables through the real diagnostics, two caption recipes, and the curve of one embedder."""
    generator = np.random.default_rng(3)
    first = generator.normal(size=(ITEMS, 8)) + 0.8
    turned = first + generator.normal(size=first.shape)
    for table, vectors, missing in (("text", first, ()), ("tuned", turned, (7,))):
        ids = np.array([item for item in range(1, ITEMS + 1) if item not in missing])
        path = results / name / "tables" / f"{table}.parquet"
        write_item_table(path, ids, vectors[ids - 1])
        diagnose(path, results / name / "data", results / name / "diagnostics" / f"{table}.json")
    ids = list(range(1, ITEMS + 1))
    for recipe, without in (("seen", 3), ("read", 5)):
        text = [None if item == without else EVIL if item == 1 else f"a {recipe} thing, number {item}" for item in ids]
        status = ["no picture" if item == without else "captioned" for item in ids]
        rows = {"item": pa.array(ids, pa.int32()), "text": pa.array(text, pa.string()), "status": status}
        write_table(results / name / "captions" / f"{recipe}.parquet", pa.table(rows), "captions")
    rows_of_training = [
        {"step": step, "loss": 5 / step**0.5, "accuracy": 1 - 1 / step, "temperature": 1.0, "seconds": 0.1 * step}
        for step in range(20, 2001, 20)
    ]
    history = "".join(json.dumps(row) + "\n" for row in rows_of_training)
    write_text(results / name / "embedders" / "tuned" / "history.jsonl", history)


def _codes(results: Path, name: str) -> None:
    """Codes of one part with a collision, an item without codes and an extra level, and codes of two parts."""
    generator = np.random.default_rng(4)
    rows = np.concatenate([np.full((1, 3), -1), generator.integers(0, 3, (ITEMS, 3))])
    rows[5] = rows[4] = (2, 2, 2)
    rows[9] = -1
    one = resolve("extra_level", rows[1:][rows[1:, 0] >= 0], None, (3, 3, 3))
    apart = np.full((ITEMS + 1, 4), -1)
    apart[rows[:, 0] >= 0] = one.codes
    two = np.concatenate([rows, generator.integers(0, 4, (ITEMS + 1, 2))], 1)
    two[0] = -1
    recipes = {
        "plain": SemanticIds(apart, (Part("text", one.sizes, extra=True),)),
        "modal": SemanticIds(two, (Part("text", (3, 3, 3)), Part("tuned", (4, 4), ordered=False))),
    }
    for recipe, ids in recipes.items():
        folder = results / name / "semantic_ids" / recipe
        write_codes(folder / "codes.parquet", ids, {}, {})
        describe_health(folder / "codes.parquet", {}, results / name / "data", folder / "health.json")
    # what a quantiser would add
    path = results / name / "semantic_ids" / "plain" / "health.json"
    found = read_json(path)
    spectra = {
        stage: describe_spectrum(generator.normal(size=(ITEMS, 8)) * np.arange(1, 9) ** power)
        for stage, power in (("table", 1), ("latent", 2), ("reconstruction", 3))
    }
    order = {"users": 9, "tau_a": 0.61, "tau_a_error": 0.02, "tau_b": 0.7, "tau_b_error": 0.02, "tie_rate": 0.1}
    found["parts"][0] |= {
        "spectrum": spectra,
        "order": {"latent": order, "reconstruction": None},
        "reconstruction": {"mse": 0.1, "unexplained": 0.25, "cosine": 0.9, "cosine_by_chance": 0.01},
        "residual_ratios": [0.6, 0.4, 0.3],
    }
    write_json(path, found)


def _maps(results: Path, name: str) -> None:
    """Maps of both tables, by the two methods, with the codes that are made of them."""
    codes = [results / name / "semantic_ids" / recipe / "codes.parquet" for recipe in ("plain", "modal")]
    for table, method, of in (("text", "pca", codes), ("tuned", "tsne", codes[1:])):
        file = f"{table}.parquet"
        make_atlas(
            results / name / "tables" / file, results / name / "data", results / name / "atlas" / file, method, of
        )


def representation_files(results: Path, names: tuple[str, ...] = ("bazaar",)) -> dict[str, dict[str, dict[str, Path]]]:
    """Diagnostics, captions, curves of embedders and semantic IDs, as `build` takes them."""
    return {
        "tables": {
            name: {t: results / name / "diagnostics" / f"{t}.json" for t in ("text", "tuned")} for name in names
        },
        "captions": {
            name: {c: results / name / "captions" / f"{c}.parquet" for c in ("seen", "read")} for name in names
        },
        "codes": {
            name: {r: results / name / "semantic_ids" / r / "codes.parquet" for r in ("plain", "modal")}
            for name in names
        },
        "health": {
            name: {r: results / name / "semantic_ids" / r / "health.json" for r in ("plain", "modal")} for name in names
        },
        "atlas": {name: {t: results / name / "atlas" / f"{t}.parquet" for t in ("text", "tuned")} for name in names},
        "embedders": {name: {"tuned": results / name / "embedders" / "tuned" / "history.jsonl"} for name in names},
    }


def _benchmarks(results: Path, name: str) -> None:
    head = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time"
    for rule, file, seconds, memory in (
        ("prepare", f"{name}.tsv", 2.5, 180.0),
        ("train", f"{name}/id/sasrec/seed-1.tsv", 31.0, 640.0),
        ("train", f"{name}/id/sasrec/seed-2.tsv", 29.0, 660.5),
        ("evaluate", f"{name}/id/sasrec/seed-1.tsv", 0.4, "NA"),
    ):
        row = f"{seconds}\t0:00:02\t{memory}\t1.0\t1.0\t1.0\t0.0\t0.0\t98.0\t{seconds}"
        write_text(results / "benchmarks" / rule / file, f"{head}\n{row}\n")


def make(
    root: Path, names: tuple[str, ...] = ("bazaar",), settings: Evaluation | None = None, repeats: int = 0
) -> Path:
    """A results/ tree below `root`; gives its path."""
    results = root / "results"
    for name in names:
        _dataset(results, name)
        for system, recommender, seeds, lift in RUNS:
            for seed in seeds:
                folder = results / name / "runs" / system / recommender / f"seed-{seed}"
                _run(folder, system, recommender, seed, lift, settings or Evaluation(), repeats)
        _tables(results, name)
        _codes(results, name)
        _maps(results, name)
        _benchmarks(results, name)
    graph = "graph LR\n  ingest --> prepare\n  prepare --> train\n  train --> evaluate\n  prepare --> evaluate\n"
    write_text(results / "report" / "rulegraph.mmd", graph + "  evaluate --> tables\n  tables --> report\n")
    return results


def metric_files(results: Path, name: str = "bazaar") -> list[Path]:
    """Every metrics.json of a dataset."""
    return sorted((results / name / "runs").rglob("metrics.json"))


def run_paths(results: Path, name: str = "bazaar") -> list[str]:
    """`system/recommender/seed-N` of every run, in the order of the tables."""
    return [f"{s}/{r}/seed-{seed}" for s, r, seeds, _ in RUNS for seed in seeds if (results / name).is_dir()]


def write_report(results: Path, names: tuple[str, ...] = ("bazaar",), settings: Evaluation | None = None) -> Path:
    """Tables and page through the library, as the scripts do; gives the page's path."""
    from tessera.reporting.formats import write
    from tessera.reporting.ranking import collect
    from tessera.reporting.ranking_page import build
    from tessera.settings.evaluation import Significance
    from tessera.settings.reporting import Report

    for name in names:
        judged = settings or Evaluation()
        table = collect(name, metric_files(results, name), ORDER, judged, Significance(resamples=1000))
        write(table, {kind: results / "tables" / f"{name}.{kind}" for kind in ("parquet", "csv", "md", "tex")})
    page = results / "report" / "index.html"
    config = {"datasets": {name: {"source": "bazaar", "note": EVIL} for name in names}}
    build(
        page,
        Report(),
        {name: run_paths(results, name) for name in names},
        config,
        results,
        **representation_files(results, names),
    )
    return page


BAD = "\x1b[31m\x00\x08\x9b\u202egpj.exe\u2066</script><img src=x onerror=alert(1)>{{ 7*7 }}&lt;"
LONG = "L" * 1_000_000
HOSTILE_CONFIG = {
    "datasets": {"bazaar": {"path": "https://ann:s3cret@host/x.csv?token=abcdef", "note": BAD, "long": LONG}},
    "models": {"m": {"folder": "https://h/y?X-Amz-Signature=5ig"}},
}


def _rewritten(path: Path, kind: str, **columns: pa.Array) -> None:
    """A table with some columns replaced."""
    table = pq.read_table(path)
    about = json.loads(table.schema.metadata[b"tessera"]) if b"tessera" in (table.schema.metadata or {}) else {}
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, values)
    write_table(path, table.replace_schema_metadata(None), kind, image_root=about.get("image_root"))


def hostile_page(root: Path) -> Path:
    """The page of a shop whose every text is hostile, with some pictures that are none."""
    tree = make(root)
    data = tree / "bazaar" / "data"
    count, users = ITEMS, USERS
    pairs = pa.map_(pa.string(), pa.string())
    _rewritten(
        data / "items.parquet",
        "items",
        raw_id=pa.array([f"{i}{BAD}{LONG}" for i in range(count)]),
        title=pa.array([f"{BAD}{i}{LONG}" for i in range(count)]),
        attributes=pa.array([[(f"{BAD}{LONG}", f"{BAD}{LONG}")]] * count, pairs),
    )
    _rewritten(data / "users.parquet", "users", raw_id=pa.array([f"{i}{BAD}{LONG}" for i in range(users)]))
    for recipe in ("seen", "read"):
        path = tree / "bazaar" / "captions" / f"{recipe}.parquet"
        _rewritten(path, "captions", text=pa.array([f"{BAD}{LONG}"] * count), status=pa.array(["captioned"] * count))
    stats = read_json(data / "stats.json")
    stats["rejected"]["reasons"] = {f"{BAD}{LONG}": 3}
    stats |= {"title_share": 0.5, "texts": {"titles_emptied": 7, "texts_changed": 2}}
    stats["common_title"] = {"title": f"{BAD}{LONG}", "items": 30, "share": 0.75}
    write_json(data / "stats.json", stats)
    pictures = tree / "bazaar" / "raw" / "images"
    for number in (1, 4, 5):
        (pictures / f"{number:03d}.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    from tessera.reporting.formats import write
    from tessera.reporting.ranking import collect
    from tessera.reporting.ranking_page import build
    from tessera.settings.evaluation import Significance
    from tessera.settings.reporting import Report

    page = tree / "report" / "index.html"
    table = collect("bazaar", metric_files(tree), ORDER, Evaluation(), Significance(resamples=100))
    write(table, {kind: tree / "tables" / f"bazaar.{kind}" for kind in ("parquet", "csv", "md", "tex")})
    files = representation_files(tree)
    runs = {"bazaar": run_paths(tree)}
    build(page, Report(title=f"{BAD}{'T' * 500}"), runs, HOSTILE_CONFIG, tree, **files)
    return page
