"""Results on the GPU and on the CPU from the same weights: scores and ranks, click probabilities, captions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from kinds import CLICKS, RECOMMENDERS, Place, Recommender, click_run, content, dataset, samples, tiger_run
from tiny_vision import tiny_built, write_built, write_pictured

from tessera.artifacts.models import write_model
from tessera.artifacts.tables import read_table
from tessera.ctr.data import load_catalogue
from tessera.ctr.evaluate import evaluate_model
from tessera.ctr.task import build
from tessera.data.dataset import load_dataset
from tessera.evaluation.histories import Histories
from tessera.evaluation.judge import rank_cases
from tessera.language.captions import write_captions
from tessera.language.models import load_model
from tessera.recommenders.evaluate import load_scorer
from tessera.recommenders.systems.base import recommender
from tessera.settings.ctr import CTREvaluation
from tessera.settings.evaluation import Evaluation
from tessera.settings.language import Captions, ItemPrompt
from tessera.training.machine import seed_step

pytestmark = pytest.mark.gpu

SCORES = 1e-4
"""Most difference of a score, as a share of the spread (standard deviation) of the scores."""
TOKENS = 0.98
"""Least share of captions that are equal to the letter: where two tokens score the same, either may be said."""

JUDGED: dict[str, Recommender] = {
    name: make for name, make in RECOMMENDERS.items() if name.count("/") < 2
} | {"tiger-exact": partial(tiger_run, "exact")}  # fmt: skip


def _spread(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Weights that are not those of the start: scores of a fresh model are nearly all the same."""
    generator = torch.Generator().manual_seed(5)
    return {
        name: value + 0.1 * torch.randn(value.shape, generator=generator) if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }


@pytest.mark.parametrize("name", JUDGED)
def test_full_ranking_is_that_of_the_cpu(name: str, device: str, tmp_path: Path, measure: Callable[..., None]) -> None:
    """The same weights rank the test targets. A rank may differ by the items whose score, on the CPU, is as near to the
    target's as the greatest difference between a score here and there: ties but for rounding. No others may pass it.
    """
    torch.set_num_threads(1)
    folder = tmp_path / "run"
    folder.mkdir()
    data = load_dataset(dataset(folder))
    run, inputs = JUDGED[name](Place("cpu"), folder)
    seed_step(1)
    weights = _spread(recommender(run).build(run, inputs, data.train_counts))
    model = folder / "model.safetensors"
    write_model(model, weights, {"items": data.n_items})
    cases = data.cases("test")
    scores, ranked = [], []
    for place in ("cpu", device):
        there, _ = JUDGED[name](Place(place), folder)
        scorer = load_scorer(model, there, data.train_counts, inputs)
        found = rank_cases(scorer, cases, Evaluation(mask_seen=False), recommend=5)
        rows = [cases.history(case)[-(getattr(scorer, "max_history", None) or 100) :] for case in range(len(cases))]
        width = max(map(len, rows))
        histories = np.array([np.pad(row, (0, width - len(row))) for row in rows])
        lengths = np.array([len(row) for row in rows])
        scores.append(scorer(Histories.of(histories, lengths, cases.users)).float().cpu().numpy())
        ranked.append(found)
    here, there_scores = scores
    finite = np.isfinite(here)
    assert (finite == np.isfinite(there_scores)).all(), "other items are out of reach"
    assert finite.any(1).all()
    difference = float(np.abs(here - there_scores)[finite].max())
    spread = float(here[finite].std())
    own = here[np.arange(len(cases)), cases.targets - 1][:, None]
    sure = (here > own + 2 * difference).sum(1)
    possible = (here >= own - 2 * difference).sum(1)
    equal = float((ranked[0].ranks == ranked[1].ranks).mean())
    measure(score=difference / spread, equal_ranks=equal, users=float(len(cases)))
    assert difference <= SCORES * spread, f"a score differs by {difference:.2e}; scores spread by {spread:.2e}"
    for found in ranked:
        wrong = (found.ranks < 1 + sure) | (found.ranks > possible)
        assert not wrong.any(), f"ranks {ranked[1].ranks[wrong]}, on the CPU {ranked[0].ranks[wrong]}"
    assert equal >= 0.98, f"only {equal:.3f} of the ranks are equal"


@pytest.mark.parametrize("name", CLICKS)
def test_click_probabilities_are_those_of_the_cpu(
    name: str, device: str, tmp_path: Path, measure: Callable[..., None]
) -> None:
    """By the whole judgement with its requests: an event that is as near to the target as another may be retrieved for
    it, so a few may be further apart."""
    folder = tmp_path / "run"
    folder.mkdir()
    data, codes = samples(folder)
    catalogue = load_catalogue(data, codes, content(folder))
    seed_step(1)
    weights = _spread(build(click_run(CLICKS[name], Place("cpu")).model, catalogue))
    model = folder / "model.safetensors"
    write_model(model, weights, {"items": catalogue.items})
    found, told = [], []
    settings = CTREvaluation(resamples=100, requests=2, candidates=5)
    for number, place in enumerate(("cpu", device)):
        run = click_run(CLICKS[name], Place(place))
        run = run.model_copy(update={"semantic_ids": True})
        output = folder / f"{number}.parquet"
        outputs = output, folder / "m.json"
        told.append(evaluate_model(run, settings, model, data, codes, *outputs, content=content(folder)))
        found.append(read_table(output, "ctr_predictions").column("probability").to_numpy())
    differences = np.abs(found[0] - found[1])
    auc = abs(told[0]["metrics"]["AUC"] - told[1]["metrics"]["AUC"])
    measure(most=float(differences.max()), apart=float((differences > 1e-4).mean()), auc=float(auc))
    assert (differences > 1e-4).mean() <= 0.01, f"{(differences > 1e-4).sum()} of {len(differences)} are apart"
    assert auc < 1e-3


def test_captions_are_those_of_the_cpu(device: str, tmp_path: Path, measure: Callable[..., None]) -> None:
    """Greedy captions by a built vision model of random weights."""
    data = write_pictured(tmp_path, 48)
    built = write_built(tmp_path / "built", tiny_built())
    for source in ("image", "both"):
        said = []
        for number, place in enumerate(("cpu", device)):
            model = load_model(tiny_built(device=place), built)
            generator = torch.Generator().manual_seed(8)
            scale = model.tower.norm.weight.data  # type: ignore[union-attr]
            scale.copy_(torch.randn(scale.shape, generator=generator))  # type: ignore[operator, arg-type]
            settings = Captions(model="tiny", source=source, max_new_tokens=12, batch=16)  # type: ignore[arg-type]
            output = tmp_path / f"{source}-{number}.parquet"
            state = tmp_path / f"state-{source}-{number}"
            write_captions(settings, ItemPrompt(domain="lamp"), model, data / "items.parquet", output, state)
            said.append([row["text"] for row in read_table(output, "captions").to_pylist()])
        equal = float(np.mean([one == other for one, other in zip(*said, strict=True)]))
        measure(**{source: equal, f"{source}_different": float(len(set(said[0])))})
        assert all(said[0])
        assert len(set(said[0])) > 3, "the captions tell nothing"
        assert equal >= TOKENS, (
            f"only {equal:.3f} of the captions are equal: {[p for p in zip(*said, strict=True) if p[0] != p[1]][:3]}"
        )
