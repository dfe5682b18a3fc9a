"""Judge one trained run on the test cases."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from tessera.artifacts.files import file_digest, read_json, write_json
from tessera.artifacts.logs import Progress
from tessera.artifacts.models import read_model
from tessera.artifacts.tables import ArtifactError, write_table
from tessera.data.dataset import load_dataset
from tessera.evaluation.candidates import read_candidates
from tessera.evaluation.drawn_users import of_drawn_users
from tessera.evaluation.judge import Scorer, evaluation_table, protocol_name, rank_cases, reads_times, summarize
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.systems.base import Fixed, as_scorer, fixed, recommender
from tessera.recommenders.user_vectors import told_of_vectors
from tessera.settings.changes import as_trained
from tessera.settings.evaluation import Evaluation
from tessera.settings.runs import Run
from tessera.training.machine import pick_device


def load_scorer(model: Path, run: Run, popularity: np.ndarray, inputs: RunInputs) -> Scorer:
    """A trained run, ready to score.

    Raises:
        ArtifactError: the weights were trained on another catalogue, or are those of another system.
    """
    tensors, description = read_model(model)
    if (items := description.get("items")) != len(popularity) - 1:
        raise ArtifactError(f"{model}: trained on {items} items, the dataset has {len(popularity) - 1}")
    run = as_trained(run, description.get("run", {}))
    trained = None if run.heuristic else recommender(run).build(run, inputs.under(run), popularity)
    try:
        if trained is None:
            return fixed(run)(run.method, tensors)
        trained.load_state_dict(tensors)
    except (RuntimeError, KeyError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ArtifactError(f"{model}: does not hold what {run.path} has learned: {reason}") from None
    return as_scorer(trained, pick_device(run.training.device))


def evaluate_run(
    run: Run,
    settings: Evaluation,
    model: Path,
    data: Path,
    inputs: RunInputs,
    candidates: Path | None,
    output: Path,
    metrics: Path,
    test_users: Path | None = None,
) -> dict[str, Any]:
    """Rank every test target, write the evaluation table and the metrics, and give the metrics back.

    Args:
        candidates: what targets are ranked among; None ranks the catalogue.
        test_users: whose targets are ranked; None for everybody's.
    """
    dataset = load_dataset(data)
    popularity = dataset.train_counts
    scorer = load_scorer(model, run, popularity, inputs)
    everyone = dataset.cases("test", times=reads_times(scorer))
    cases = of_drawn_users(test_users, everyone)
    remarks = [*run.remarks, *(scorer.remarks(cases, settings) if isinstance(scorer, Fixed) else [])]
    chosen = read_candidates(candidates, cases, len(popularity) - 1) if candidates else None
    started = time.monotonic()
    with Progress("test users", len(cases), "users") as progress:
        cold, items = popularity == 0, len(popularity) - 1
        ranked = rank_cases(scorer, cases, settings, chosen, settings.recommendations, progress.update, cold, items)
    seconds = time.monotonic() - started
    table = evaluation_table(cases, ranked, popularity)
    digests = {
        name: file_digest(path) for name, path in (("candidates", candidates), ("test_users", test_users)) if path
    }
    described = {"system": run.system, "recommender": run.recommender, "seed": run.seed}
    write_table(output, table, "evaluation", {**described, "evaluation": settings.model_dump(mode="json")}, digests)
    summary = summarize(table, settings, popularity, protocol_name(settings, chosen), **described)
    about = {
        "drawn_from": len(everyone) if test_users else None,
        "seconds": round(seconds, 3),
        "remarks": [*remarks, *read_json(model.with_suffix(".json")).get("remarks", [])],
        "trained": not run.heuristic,
        "members": [member.path for member in run.members],
        "missing": run.missing.model_dump(mode="json") if run.missing else None,
        "apart_from_losses": run.apart_from_losses,
        "user_vectors": told_of_vectors(scorer, cases, ranked),
    }
    write_json(metrics, summary | about)
    return summary
