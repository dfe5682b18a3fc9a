"""Finished runs side by side: the sum by hand, the shares that validation chooses, what is refused."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from asking import CPU
from pattern import ITEMS

import tessera
from tessera.artifacts.files import read_json, write_json
from tessera.artifacts.logs import Terminated, stage
from tessera.artifacts.models import read_tensors, write_tensors
from tessera.artifacts.tables import ArtifactError, write_item_table
from tessera.data.dataset import load_dataset
from tessera.evaluation.histories import Histories
from tessera.evaluation.judge import validation_metrics
from tessera.plan.graph import Noun, Plan
from tessera.plan.jobs import Jobs
from tessera.plan.search import searched
from tessera.recommenders.evaluate import load_scorer
from tessera.recommenders.inputs import RunInputs, run_inputs
from tessera.recommenders.systems import ensemble
from tessera.recommenders.systems.base import UNSCORED, Recommender, as_scorer, recommender, training_histories
from tessera.recommenders.train import train_run, validation_settings
from tessera.settings.base import ConfigError
from tessera.settings.config import load
from tessera.settings.runs import Run
from tessera.settings.systems.ensemble import EnsembleSystem

SHORT, LONG = 3, 12
MEMBERS: dict[str, Any] = {
    "ids": {"items": "ids", "backbones": ["short", "gru4rec"]},
    "text": {"items": {"table": "t", "adapter": [8]}, "backbones": ["sasrec"], "training": {"epochs": 2}},
    "several": {"recommender": "eimf", "dim": 16, "max_length": LONG, "training": {"epochs": 1}},
}
BOTH: dict[str, Any] = {"recommender": "ensemble", "members": ["ids/short", "text", "several"]}


def plan(both: dict[str, Any] | None = None, **sections: Any) -> Plan:
    """The plan of the members and of what is made of them."""
    shape: dict[str, Any] = {"dim": 16, "dropout": 0.1}
    config = {
        "datasets": {"x": {"source": "bazaar"}},
        "backbones": {
            "short": {"kind": "sasrec", **shape, "max_length": SHORT},
            "sasrec": {**shape, "max_length": LONG}, "gru4rec": {**shape, "max_length": LONG},
        },
        "tables": {
            "t": {"recipe": "vectors", "path": "t.npy", "made_from": ["text"]},
            "u": {"recipe": "vectors", "path": "u.npy"},
        },
        "semantic_ids": {name: {"quantizer": "rq_kmeans", "tables": "t"} for name in ("c", "d")},
        "systems": {**MEMBERS, "both": both or BOTH, **sections.pop("systems", {})},
        "training": {"epochs": 2, "batch_tokens": 200, "learning_rate": 0.01, "device": "cpu"},
        "experiment": {"datasets": ["x"], "systems": ["both"], "backbones": ["sasrec"], "seeds": [1]},
        **sections,
    }  # fmt: skip
    return Plan(load(config))


def files_of(run: Run, root: Path, made: Plan | None = None) -> RunInputs:
    """The inputs of a run as the workflow names them, below another root."""
    planned = Jobs(made or plan()).inputs(Noun("run", run.path), "x")
    below = {
        key: [str(root / Path(file).relative_to("results/experiment/x")) for file in files]
        for key, files in planned.items() if isinstance(files, list)
    }  # fmt: skip
    return run_inputs(run, below)


@pytest.fixture(scope="module")
def root(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The members and the ensemble, as the workflow leaves them."""
    root = tmp_path_factory.mktemp("ensemble") / "x"
    rows = np.random.default_rng(3).normal(size=(ITEMS, 5)).astype(np.float32)
    write_item_table(root / "tables/t.parquet", np.arange(1, ITEMS + 1), rows)
    (root / "data").symlink_to(data)
    made = plan()
    for noun in made.closure([Noun("run", made.runs[0].path)]):
        if noun.kind == "run":
            run = made.trained[noun.name]
            train_run(run, data, files_of(run, root), weights(root, noun.name), root / "state")
    return root


def weights(root: Path, run: str) -> Path:
    return root / "runs" / run / "model.safetensors"


def whole() -> Run:
    """The run of the ensemble."""
    (run,) = plan().runs
    return run


def log_probabilities(root: Path, data: Path, histories: Histories) -> list[np.ndarray]:
    """What each member says by itself, in float64."""
    dataset, said = load_dataset(data), []
    for member in whole().members:
        scorer = load_scorer(weights(root, member.path), member, dataset.train_counts, files_of(member, root))
        scores = np.stack([score_one(scorer, histories, row) for row in range(len(histories))]).astype(np.float64)
        said.append(scores - np.log(np.exp(scores).sum(1, keepdims=True)))
    return said


def score_one(scorer: Any, histories: Histories, row: int) -> np.ndarray:
    """Scores after one history, cut to what the member reads."""
    items = histories.items[row, : histories.lengths[row]].numpy()
    return np.asarray(scorer(Histories.of(items[None, -(scorer.max_history or len(items)) :]))[0])


def asked(data: Path) -> Histories:
    """Histories longer and shorter than what the members read."""
    histories = training_histories(load_dataset(data))
    chosen = [histories.items[a:b] for a, b in zip(histories.offsets, histories.offsets[1:], strict=False)][:9]
    rows = np.zeros((len(chosen), LONG), np.int64)
    for row, items in enumerate(chosen):
        kept = items[-LONG:]
        rows[row, : len(kept)] = kept
    return Histories.of(rows)


def test_the_end_of_a_history_is_what_a_member_reads() -> None:
    rows = np.array([[1, 2, 3, 4, 5], [6, 7, 0, 0, 0], [0, 0, 0, 0, 0]])
    times = np.where(rows > 0, rows * 10.0, np.nan)
    cut = Histories.of(rows, times=times).latest(3)
    assert cut.items.tolist() == [[3, 4, 5], [6, 7, 0], [0, 0, 0]]
    assert cut.lengths.tolist() == [3, 2, 1]
    assert cut.times is not None
    np.testing.assert_array_equal(cut.times[:2].numpy(), [[30, 40, 50], [60, 70, np.nan]])
    for same in (None, 5, 9):
        assert Histories.of(rows).latest(same).items.shape == (3, 5)


def test_scores_are_the_weighted_sum_of_log_probabilities(root: Path, data: Path) -> None:
    histories = asked(data)
    assert int(histories.lengths.max()) > SHORT
    run, said = whole(), log_probabilities(root, data, histories)
    shares = read_tensors(weights(root, run.path))["shares"].numpy()
    np.testing.assert_allclose(shares.sum(), 1)
    scorer = load_scorer(weights(root, run.path), run, load_dataset(data).train_counts, files_of(run, root))
    assert scorer.max_history is None or scorer.max_history == LONG
    got = scorer(histories).numpy()
    np.testing.assert_allclose(got, sum(s * one for s, one in zip(shares, said, strict=True)), rtol=1e-4, atol=1e-4)


def test_members_are_as_they_were_trained(root: Path) -> None:
    run = whole()
    made = read_tensors(weights(root, run.path))
    for number, member in enumerate(run.members):
        for name, tensor in read_tensors(weights(root, member.path)).items():
            assert torch.equal(made[f"members.{number}.{name}"], tensor)


def climb(value: Callable[[np.ndarray], float], shares: list[float], members: int, rounds: int) -> np.ndarray:
    """The choice by hand: coordinate by coordinate, a better value alone moves it."""
    at = np.full(members, 1 / members)
    best = value(at)
    for _ in range(rounds):
        before = at
        for number in range(members):
            start = at
            for share in shares:
                others = np.where(np.arange(members) == number, 0, start)
                others = others if others.any() else (np.arange(members) != number).astype(float)
                tried = others / others.sum() * (1 - share)
                tried[number] = share
                if value(tried) > best:
                    best, at = value(tried), tried
        if np.array_equal(before, at):
            break
    return at


@pytest.mark.parametrize("remembered", [ensemble.REMEMBERED, 0, 40_000])
def test_shares_are_those_that_validation_prefers(
    remembered: int, root: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """By hand over scorers of their own; with all, nothing or a part of what members say kept."""
    monkeypatch.setattr(ensemble, "REMEMBERED", remembered)
    run, dataset = whole(), load_dataset(data)
    with caplog.at_level(logging.INFO):
        train_run(run, data, files_of(run, root), tmp_path / "model.safetensors", tmp_path / "state")
    got = read_tensors(tmp_path / "model.safetensors")["shares"].numpy()
    cases, judged = dataset.cases("valid"), validation_settings(run, len(dataset.train_counts) - 1)
    made = recommender(run).build(run, files_of(run, root), dataset.train_counts)
    tensors = read_tensors(weights(root, run.path))

    def value(shares: np.ndarray) -> float:
        made.load_state_dict({**tensors, "shares": torch.from_numpy(shares)})
        return validation_metrics(as_scorer(made, CPU), cases, judged)["NDCG@10"]

    settings = run.method.model_dump()
    np.testing.assert_allclose(got, climb(value, settings["shares"], 3, settings["rounds"]), atol=1e-12)
    alone = [value(np.eye(3)[number]) for number in range(3)]
    assert value(got) >= value(np.full(3, 1 / 3))
    assert value(got) > max(alone), "the members of this world know different things"
    assert "nothing is trained: its members are" in caplog.text
    described = read_json(tmp_path / "model.json")
    assert described["selected"] == {
        one.path: round(float(share), 6) for one, share in zip(run.members, got, strict=True)
    }


def test_given_weights_are_taken_as_ratios(root: Path, data: Path, tmp_path: Path) -> None:
    run = plan({**BOTH, "weights": [3, 0, 1]}).runs[0]
    train_run(run, data, files_of(run, root), tmp_path / "model.safetensors", tmp_path / "state")
    assert read_tensors(tmp_path / "model.safetensors")["shares"].tolist() == [0.75, 0, 0.25]
    assert "selected" not in read_json(tmp_path / "model.json")
    histories = asked(data)
    scorer = load_scorer(tmp_path / "model.safetensors", run, load_dataset(data).train_counts, files_of(run, root))
    first, _, third = log_probabilities(root, data, histories)
    np.testing.assert_allclose(scorer(histories).numpy(), 0.75 * first + 0.25 * third, rtol=1e-4, atol=1e-4)


def test_a_run_that_cannot_be_validated_takes_the_shares_of_the_one_that_was(
    root: Path, data: Path, tmp_path: Path
) -> None:
    run = whole()
    validated = weights(root, run.path).with_suffix(".json")
    output = tmp_path / "model.safetensors"
    train_run(run, data, files_of(run, root), output, tmp_path / "state", validated=validated)
    wanted = read_tensors(weights(root, run.path))["shares"]
    torch.testing.assert_close(read_tensors(output)["shares"], wanted, atol=1e-5, rtol=0)


def test_a_choice_that_was_stopped_goes_on_with_all_that_its_members_know(
    root: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of I3-MRec's graph too, whose size is known when a member has been read."""
    graph = {"recommender": "i3_mrec_graph", "text": "t", "dim": 8, "training": {"epochs": 1}}
    made = plan({**BOTH, "members": ["graph", "text"]}, systems={"graph": graph})
    run = made.runs[0]
    member = run.members[0]
    train_run(member, data, files_of(member, root, made), weights(root, member.path), tmp_path / "member")
    inputs = files_of(run, root, made)
    train_run(run, data, inputs, tmp_path / "whole.safetensors", tmp_path / "whole")
    choose = ensemble.Ensemble._choose

    def stopped(self: ensemble.Ensemble, *arguments: Any) -> None:
        choose(self, *arguments)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(ensemble.Ensemble, "_choose", stopped)
        with pytest.raises(Terminated), stage(None):
            train_run(run, data, inputs, tmp_path / "stopped.safetensors", tmp_path / "stopped")
    signal.signal(signal.SIGTERM, before)
    assert list((tmp_path / "stopped").rglob("checkpoint.safetensors"))
    monkeypatch.setattr(ensemble.Ensemble, "_choose", None)  # it was made
    train_run(run, data, inputs, tmp_path / "stopped.safetensors", tmp_path / "stopped")
    assert (tmp_path / "stopped.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_a_finished_ensemble_is_loaded_and_saved(root: Path, data: Path, tmp_path: Path) -> None:
    run = whole()
    loaded = tessera.load(weights(root, run.path).parent, device="cpu")
    raw = loaded.catalogue.raw_ids
    lists = loaded.recommend([[raw[3], raw[4]]], k=5)
    loaded.save(tmp_path / "saved")
    again = tessera.load(tmp_path / "saved", device="cpu").recommend([[raw[3], raw[4]]], k=5)
    assert lists.equals(again)


def test_weights_of_another_run_are_refused(root: Path, data: Path, tmp_path: Path) -> None:
    run = whole()
    inputs = files_of(run, root)
    wrong = tmp_path / "wrong/model.safetensors"
    wrong.parent.mkdir()
    write_tensors(wrong, {"x": torch.zeros(1)})
    wrong.with_suffix(".json").write_bytes(Path(inputs.members[0]).with_suffix(".json").read_bytes())
    inputs = inputs.model_copy(update={"members": [str(wrong), *inputs.members[1:]]})
    with pytest.raises(ArtifactError, match=r"wrong/model\.safetensors: not the weights of 'ids'"):
        train_run(run, data, inputs, tmp_path / "model.safetensors", tmp_path / "state")
    assert not (tmp_path / "model.safetensors").exists()


def test_what_a_search_chose_for_a_member_counts(root: Path, data: Path, tmp_path: Path) -> None:
    """The member stands with the width that was chosen, not with that of the config; so it does when it is judged."""
    made = plan(both={**BOTH, "members": ["ids/short", "several"]})
    run = made.runs[0]
    narrow = next(member for member in run.members if member.system == "several")
    chosen = {"systems.several.dim": 8}
    from tessera.settings.changes import with_values

    output = tmp_path / "runs" / narrow.path / "model.safetensors"
    train_run(with_values(narrow, chosen), data, RunInputs(), output, tmp_path / "state")
    members = [str(weights(root, run.members[0].path)), str(output)]
    whole_file = tmp_path / "model.safetensors"
    train_run(run, data, RunInputs(members=members), whole_file, tmp_path / "state")
    described = read_json(whole_file.with_suffix(".json"))["run"]
    assert described["members"][1]["method"]["dim"] == 8
    assert load_scorer(whole_file, run, load_dataset(data).train_counts, RunInputs()) is not None


# ---------------------------------------------------------------- the plan


def test_members_are_trained_first_and_told() -> None:
    made = plan({"recommender": "ensemble", "members": ["text", {"system": "ids", "backbone": "gru4rec", "seed": 7}]})
    run = made.runs[0]
    assert [member.path for member in run.members] == ["text/sasrec/seed-1", "ids/gru4rec/seed-7"]
    assert run.tables == ["t"]
    assert set(made.trained) == {run.path, *(member.path for member in run.members)}
    files = Jobs(made).inputs(Noun("run", run.path), "x")
    assert [Path(file).parent.parent.name for file in files["members"]] == ["sasrec", "gru4rec"]
    assert all(file.endswith("model.json") for file in files["member_descriptions"])
    judged = Jobs(made).inputs(Noun("run", run.path), "x", judged=True)
    assert "members" not in judged
    assert [Path(file).name for file in judged["tables"]] == ["t.parquet"]
    assert Run.model_validate_json(run.model_dump_json()) == run


def test_what_is_said_of_a_member_is_said_of_the_whole() -> None:
    official = {"recommender": "pad", "table": "t", "preset": "official"}
    run = plan({"recommender": "ensemble", "members": ["text", "o"]}, systems={"o": official}).runs[0]
    assert "o/sasrec: runs under preset official" in run.remarks


def test_what_members_lose_is_told_of_them(data: Path) -> None:
    """The whole of members that lose nothing loses nothing; the remark of one that does stands once."""
    whole_texts = {"text": {**MEMBERS["text"], "missing": {"text": 0.0}}}
    run = plan({"recommender": "ensemble", "members": ["text", "ids/short"]}, systems=whole_texts,
               missing={"text": 0.5}).runs[0]  # fmt: skip
    assert (run.missing, run.remarks) == (None, [])
    run = plan({"recommender": "ensemble", "members": ["text", "ids/short"]}, missing={"text": 0.5}).runs[0]
    assert run.missing is None
    assert [remark.partition(":")[0] for remark in run.remarks] == ["text/sasrec"]
    assert run.members[0].missing is not None


def test_what_a_training_said_of_itself_is_told_beside_the_whole(root: Path, data: Path, tmp_path: Path) -> None:
    run = whole()
    inputs = files_of(run, root)
    marked = tmp_path / "told/model.safetensors"
    marked.parent.mkdir()
    marked.write_bytes(Path(inputs.members[0]).read_bytes())
    described = read_json(Path(inputs.members[0]).with_suffix(".json"))
    write_json(marked.with_suffix(".json"), {**described, "remarks": ["of unknown origin"]})
    train_run(
        run, data, inputs.model_copy(update={"members": [str(marked), *inputs.members[1:]]}),
        tmp_path / "model.safetensors", tmp_path / "state",
    )  # fmt: skip
    assert read_json(tmp_path / "model.json")["remarks"] == ["ids/short: of unknown origin"]
    with pytest.raises(ValueError, match="is made of 3 runs, but weights of 2 were given"):
        train_run(
            run, data, inputs.model_copy(update={"members": inputs.members[1:]}),
            tmp_path / "model.safetensors", tmp_path / "state",
        )  # fmt: skip


def test_another_device_is_that_of_the_members_too() -> None:
    moved = whole().on("cuda")
    assert {one.training.device for one in (moved, *moved.members)} == {"cuda"}


def test_members_go_on_from_earlier_runs_and_the_whole_does_not() -> None:
    made = plan(training={"warm_start": "earlier"})
    assert made.runs[0].training.warm_start is None
    assert all(member.training.warm_start == "earlier" for member in made.runs[0].members)


def test_a_search_is_of_the_members() -> None:
    space = {"training.learning_rate": {"low": 1.0e-4, "high": 1.0e-2, "log": True}}
    asked: dict[str, Any] = {"datasets": ["x"], "systems": ["both", "text"], "backbones": ["sasrec"], "seeds": [1]}
    made = plan(search={"trials": 2, "space": space}, experiment=asked)
    assert set(searched(made)) == {"text/sasrec"}
    # what stands beside the member's numbers stands beside those of the whole; a run that is no row is not searched
    judged = Jobs(made).evaluation(Noun("run", made.runs[0].path))
    assert "text/sasrec: settings chosen on validation among 2 quasi-random trials" in judged
    other = plan({**BOTH, "members": ["text", "ids/gru4rec"]}, search={"trials": 2, "space": space},
                 experiment={**asked, "systems": ["both", "text", "id"]})  # fmt: skip
    assert Jobs(other).search.chosen(Noun("run", "ids/gru4rec/seed-1"), "x") == {}
    files = Jobs(made).inputs(Noun("run", made.runs[0].path), "x")
    assert any("/text/sasrec/" in file for file in files["members"])
    with pytest.raises(ConfigError, match=r"space\.systems\.both\.rounds: nothing of 'both' is searched"):
        plan(search={"trials": 2, "space": {**space, "systems.both.rounds": {"choices": [1, 2]}}}, experiment=asked)
    with pytest.raises(ConfigError, match="'both' is no system of the experiment that has settings to search"):
        plan(search={"trials": 2, "space": space, "systems": ["both"]}, experiment=asked)


def test_the_code_of_members_is_that_of_the_whole() -> None:
    from tessera.plan.graph import kind_modules

    modules = kind_modules(whole())
    assert {"tessera.recommenders.systems.eimf", "tessera.recommenders.backbones.sasrec"} <= set(modules)
    assert "tessera.recommenders.backbones.gru4rec" not in modules


@pytest.mark.parametrize(
    ("both", "said"),
    [
        ({"members": ["text"]}, "systems.both.members"),
        ({"members": ["text", "txt"]}, "systems.both.members.1.system: unknown name 'txt'; did you mean 'text'?"),
        ({"members": ["text", "ids/gru"]}, "members.1.backbone: unknown name 'gru'; did you mean 'gru4rec'?"),
        ({"members": ["text", "ids"]}, "members.1.backbone: 'ids' runs under short, gru4rec; name one: ids/short"),
        ({"members": ["text", "ids/"]}, "systems.both.members.1.backbone"),
        ({"members": ["text", "several/sasrec"]}, "members.1.backbone: 'several' brings its own network"),
        ({"members": ["text", "markov"]}, "members.1.system: 'markov' is not trained"),
        ({"members": ["text", "both"]}, "members.1.system: 'both' is an ensemble itself"),
        ({"members": ["text", "text/sasrec"]}, "systems.both.members: name something twice under seed 1: 'text'"),
        (
            {"members": ["text", {"system": "text", "seed": 1}]},
            "systems.both.members: name something twice under seed 1: 'text'",
        ),
        ({"members": ["text", "text/gru4rec"]}, "'text' runs under sasrec; add 'gru4rec' to its `backbones`"),
        (
            {"members": [{"system": "text", "seed": 1}, {"system": "several", "seed": 2}], "seeds": [1, 2]},
            "systems.both.seeds: every member names its own, so that those of [1, 2] would give the same",
        ),
        ({**BOTH, "weights": [1, 1]}, "systems.both: weights: expected one a member, 3 (got 2)"),
        ({**BOTH, "weights": [0, 0, 0]}, "weights: none is below 0, and one is above"),
        ({**BOTH, "weights": [1, -1, 1]}, "weights: none is below 0, and one is above"),
        ({**BOTH, "shares": [0.5, 1.0]}, "shares: each is at least 0 and below 1 (got 1)"),
        ({**BOTH, "missing": {"text": 0.5}}, "systems.both.missing: is said of the members"),
        ({**BOTH, "training": {"warm_start": "x"}}, "systems.both.training.warm_start: is said of the members"),
        (
            {**BOTH, "training": {"epochs": 3}},
            "systems.both.training.epochs: is said of the members, which are what is",
        ),
        ({**BOTH, "weights": [1, 1, 1], "rounds": 2}, "systems.both.rounds: is read where shares are chosen"),
        ({"members": ["one", "two"]}, "members: read several semantic IDs (c, d); they may share one"),
    ],
)
def test_bad_settings_are_refused(both: dict[str, Any], said: str) -> None:
    codes = {"one": {"items": {"semantic_ids": "c"}}, "two": {"items": {"semantic_ids": "d"}}}
    with pytest.raises(ConfigError) as error:
        plan({"recommender": "ensemble", **both}, systems=codes)
    assert said in str(error.value)


def test_histories_without_times_stay_so() -> None:
    histories = Histories.of(np.array([[1, 2, 3, 4]]))
    assert replace(histories).latest(2).times is None


class Fixed(Recommender):
    """The same scores (items,) after every history; those of some items are of nothing that it knows."""

    build = batches = losses = None  # type: ignore[assignment]

    def __init__(self, scores: list[float], unknown: list[int] | None = None) -> None:
        super().__init__()
        self.scores, self.unknown = torch.tensor(scores), unknown
        if unknown is not None:
            self.unscored = UNSCORED

    def score(self, histories: Histories, prepared: Any) -> torch.Tensor:
        return self.scores.repeat(len(histories), 1)

    def score_known(self, histories: Histories, prepared: Any) -> torch.Tensor:
        scores = self.score(histories, prepared)
        scores[:, self.unknown or []] = self.unscored
        return scores


@pytest.mark.parametrize(
    ("weights", "unknown"), [([2.0, 1.0], [3]), ([2.0, 1.0, 1.0], []), ([1.0, 0.0], [2, 3]), ([0.0, 1.0, 0.0], [1, 3])]
)
def test_an_item_is_known_where_one_member_with_a_share_knows_it(weights: list[float], unknown: list[int]) -> None:
    members = [Fixed([-1.0, -2, -3, -3], [2, 3]), Fixed([-2.0, -3, -1, -3], [1, 3]), Fixed([0.0, 0, 0, 5])]
    names = ["a", "b", "c"][: len(weights)]
    settings = EnsembleSystem(members=names)
    made = ensemble.Ensemble(settings, names, members[: len(weights)])
    made.shares.copy_(torch.tensor(weights))
    scorer, histories = as_scorer(made, CPU), Histories.of(np.array([[1], [2]]), np.array([1, 1]))
    plain, scores = made.score(histories, made.prepare()).float(), scorer(histories)
    assert plain.isfinite().all()
    marked = (scores <= scorer.unscored).nonzero()
    assert marked.tolist() == [[row, item] for row in range(2) for item in unknown]
    assert torch.equal(scores[scores > scorer.unscored], plain[scores > scorer.unscored])
    assert all(plain[0, item] == plain[0].min() for item in unknown)  # the order is the same
