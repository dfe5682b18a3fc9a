"""The model card of an export: what it is, how good, of what data, under which settings, and where its limits are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from tessera import __version__
from tessera.evaluation.metrics import protocol_suffix
from tessera.settings.export import Export
from tessera.settings.runs import Run


@dataclass(frozen=True)
class Facts:
    """What the card is written of."""

    run: Run
    settings: Export
    files: Mapping[str, str]
    """What is in every file."""
    vectors: Mapping[str, Any]
    """Of the item vectors, the index and the user tower; empty where there are none."""
    absent: Mapping[str, str]
    """What is not in the folder, and why."""
    data: Mapping[str, Any]
    trained: Mapping[str, Any]
    """`model.json`."""
    judged: Mapping[str, Any] | None
    """`metrics.json`; None where the run was not judged."""
    judged_on: str | None = None
    """Where the run was trained on every interaction: the data set on which the one of the same settings was judged."""


def model_card(facts: Facts) -> str:
    """The card as Markdown behind a YAML front matter, as the Hugging Face Hub reads it."""
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    name = _name(facts)
    data = str(facts.judged_on or facts.data.get("name") or "unknown")
    results = [
        EvalResult(
            task_type="sequential-recommendation",
            dataset_type=data,
            dataset_name=data,
            metric_type=metric,
            metric_value=round(value, 6),
        )
        for metric, value in _named_metrics(facts.judged or {}).items()
    ]
    front = ModelCardData(
        library_name="tessera",
        license=facts.settings.licence,
        model_name=name,
        tags=list(dict.fromkeys(["recommendation", "sequential-recommendation", facts.run.recommender])),
        eval_results=results or None,
    )
    parts = [f"# {name}", _opening(facts), _use(facts), _metrics(facts), _of_data(facts), _index(facts), _files(facts)]
    body = "\n\n".join([*filter(None, parts), _limits(facts), _licence(facts), _config(facts)])
    return str(ModelCard(f"---\n{front.to_yaml()}\n---\n\n{body}\n"))


def _name(facts: Facts) -> str:
    run = facts.run
    return run.system if run.system == run.recommender else f"{run.system}/{run.recommender}"


def _opening(facts: Facts) -> str:
    run, items = facts.run, facts.data["items"]
    return (
        f"A sequential recommender: it reads the items of a user's history, oldest first, and ranks a catalogue of "
        f"{items:,} items as the next one. Trained by Tessera {facts.trained.get('tessera', __version__)} as the "
        f"system `{run.system}` under `{run.recommender}`, seed {run.seed}."
    )


def _use(facts: Facts) -> str:
    lines = [
        "## Use",
        "",
        "```python",
        "import tessera",
        "",
        'run = tessera.load("FOLDER")  # this folder',
        'run.recommend(["ITEM", "ITEM"], k=10)  # ids of the raw data, oldest first',
        "```",
    ]
    if "onnx" in facts.vectors and facts.vectors["vectors_a_user"] == 1:
        lines += ["", "Without Tessera:", "", "```python", *_without_tessera(facts), "```"]
    return "\n".join(lines)


def _without_tessera(facts: Facts) -> list[str]:
    vectors, index = facts.vectors, facts.vectors["index"]
    lines = [
        "import json, faiss, numpy as np, onnxruntime",
        "",
        'ids = json.load(open("item_ids.json"))',
        "dense = {raw: number for number, raw in enumerate(ids)}",
        'tower = onnxruntime.InferenceSession("user_tower.onnx")',
        'index = faiss.read_index("index.faiss")',
        f'history = np.array([[dense[raw] for raw in ["ITEM", "ITEM"]]])[:, -{vectors["max_history"]}:]'
        if vectors["max_history"]
        else 'history = np.array([[dense[raw] for raw in ["ITEM", "ITEM"]]])',
        'user = tower.run(None, {"items": history})[0]',
    ]
    if vectors["bias"]:
        lines.append("user = np.concatenate([user, np.ones((len(user), 1), np.float32)], 1)")
    if missing := index["width"] - vectors["dim"] - bool(vectors["bias"]):
        lines.append(f"user = np.pad(user, ((0, 0), (0, {missing})))")
    return [*lines, "scores, best = index.search(user, 10)", "print([ids[item] for item in best[0] if item > 0])"]


def _table(header: tuple[str, str], rows: Mapping[str, Any]) -> str:
    lines = [f"| {header[0]} | {header[1]} |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {value} |" for name, value in rows.items())])


def _named_metrics(judged: Mapping[str, Any]) -> dict[str, float]:
    """The metrics by the names that tables give them."""
    values: Mapping[str, float] = judged.get("metrics", {})
    return {name + protocol_suffix(name, judged["protocol"]): value for name, value in values.items()}


def _metrics(facts: Facts) -> str:
    judged = facts.judged
    if judged is None:
        return "## Metrics\n\nThe run was not judged, or its metrics were not at hand when this folder was written."
    everyone = judged.get("drawn_from")
    part = everyone is not None and everyone != judged["test_users"]
    users = f"{judged['users']:,} test users" + (f", drawn at random from {everyone:,}" if part else "")
    seen = "items of the user's own history masked" if facts.run.mask_seen else "seen items not masked"
    after = f"{users}; protocol: {judged['protocol']}; {seen}."
    if facts.judged_on is not None:
        after += (
            " They are of the run with the same settings that did not train on its validation and test targets; "
            "the weights here did, so that nothing is left to judge them on."
        )
    shown = {name: f"{value:.4f}" for name, value in _named_metrics(judged).items()}
    remarks = [f"- {remark}" for remark in judged.get("remarks", [])]
    parts = ["## Metrics", after, _table(("metric", "value"), shown), "\n".join(remarks)]
    return "\n\n".join(filter(None, parts))


def _of_data(facts: Facts) -> str:
    shown = {
        name: f"{value:,}" if isinstance(value, int) else f"`{value}`"
        for name, value in facts.data.items()
        if value is not None
    }
    return "## Data\n\n" + _table(("data set", ""), shown)


def _index(facts: Facts) -> str:
    if "index" not in facts.vectors:
        return ""
    index = facts.vectors["index"]
    kinds = {
        "flat": "exact: every item is compared",
        "hnsw": "HNSW, a graph of near items",
        "ivf_pq": "IVF-PQ, lists of compressed vectors",
    }
    made = {key: value for key, value in index.items() if key not in ("kind", "recall", "measured_on")}
    rows = {"kind": kinds[index["kind"]], **made, **{name: f"{value:.4f}" for name, value in index["recall"].items()}}
    told_so = f"Recall is the share of the exact list that is found, measured on {index['measured_on']}."
    return "\n\n".join(["## Index", told_so, _table(("", "index.faiss"), rows)])


def _files(facts: Facts) -> str:
    absent = "\n".join(f"- No {what}: {why}." for what, why in facts.absent.items())
    parts = ["## Files", _table(("file", "what"), {f"`{name}`": what for name, what in facts.files.items()}), absent]
    return "\n\n".join(filter(None, parts))


def _limits(facts: Facts) -> str:
    most = facts.vectors.get("max_history")
    lines = [
        "- It knows the items of its catalogue; other ids are left out of a history and never recommended.",
        "- A history without a known item says nothing: `recommend` then gives the most popular items.",
        "- Scores are comparable within one list, not between users or systems.",
        "- It repeats what the data show: what was popular or shown more was learned from more.",
    ]
    if not facts.run.mask_seen:
        lines.append(
            "- Items of the history were ranked when the run was judged. `recommend` leaves them out unless it is "
            "asked with `seen=True`."
        )
    if most:
        lines.append(f"- Of a history the last {most} items are read.")
    if facts.vectors.get("judged_with_times"):
        lines.append(
            "- The metrics were measured with the times of histories. `recommend` and the user tower are given none, "
            "and count positions alone: their lists differ a little from those that were judged."
        )
    if "index" in facts.vectors and facts.vectors["index"]["kind"] != "flat":
        lines.append("- The index is not exact; its recall stands above.")
    if "onnx" in facts.vectors:
        difference = facts.vectors["onnx"]["difference"]
        lines.append(f"- The ONNX graph gave the same vectors to within {difference:.1e} of their largest number.")
        lines.append("- Items of the history are not left out by the index; `recommend` leaves them out.")
    return "\n".join(["## Limits", "", *lines])


def _licence(facts: Facts) -> str:
    licence = facts.settings.licence
    said = f"`{licence}`" if licence else "None was given: ask whoever made this folder before you use it."
    return f"## Licence\n\n{said}"


def _config(facts: Facts) -> str:
    settings = yaml.safe_dump(facts.run.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    fence = "```"
    while fence in settings:
        fence += "`"
    return f"## Config\n\nThe run with every default resolved:\n\n{fence}yaml\n{settings}{fence}"
