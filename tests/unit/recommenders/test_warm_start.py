"""Training that goes on from last week's weights: which row goes where, never worse, nothing seen before."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stopped_training import stopped_after
from two_weeks import (
    ANEW,
    BY_ITEM,
    FIRST,
    SECOND,
    SYSTEMS,
    TIGER,
    WEEK,
    resolved,
    train,
    write_data,
    write_log,
    write_reads,
)  # fmt: skip

import tessera
from tessera.artifacts.logs import Terminated
from tessera.artifacts.models import read_tensors
from tessera.data.dataset import load_dataset
from tessera.data.held_out import Moment, seen_before
from tessera.evaluation.judge import validation_metrics
from tessera.recommenders.evaluate import evaluate_run, load_scorer
from tessera.recommenders.item_encoders.base import ItemEncoder
from tessera.recommenders.item_encoders.ids import IdItemEncoder
from tessera.recommenders.systems.base import Recommender, recommender
from tessera.recommenders.train import run_identity
from tessera.recommenders.warm_start import UNKNOWN, WarmStartError
from tessera.serving.folder import run_files
from tessera.settings.evaluation import Evaluation
from tessera.settings.kinds import implementation, members
from tessera.settings.runs import Run
from tessera.settings.systems.base import TrainedSystem
from tessera.training.engine import Engine
from tessera.training.machine import seed_step

CUT = WEEK + 100
KEPT = [raw for raw in SECOND if raw in FIRST]


@pytest.fixture(scope="module")
def weeks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Last week, trained on everything, every system; this week, cut by time."""
    world = tmp_path_factory.mktemp("weeks")
    before, now = world / "before", world / "now"
    write_data(before / "data", write_log(second=False), FIRST, "none")
    write_data(now / "data", write_log(), SECOND, "global_temporal", CUT)
    write_reads(before, FIRST)
    write_reads(now, SECOND)
    validated = world / "validated.json"
    validated.write_text(json.dumps({"best_epoch": 3}))
    folders = {"world": world, "before": before, "now": now}
    for name in SYSTEMS:
        folders[name] = train(before, resolved(name), validated=validated)
    return folders


def described(folder: Path) -> dict[str, Any]:
    description: dict[str, Any] = json.loads((folder / "model.json").read_text())
    return description


def curve(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


# ---------------------------------------------------------------- which row goes where


@pytest.mark.parametrize("name", SYSTEMS)
def test_rows_go_by_raw_id_and_all_else_as_it_is(name: str, weeks: dict[str, Path]) -> None:
    now, run = weeks["now"], resolved(name, epochs=0)
    warm = train(now, run, weeks[name], name="copied")
    old, carried = read_tensors(weeks[name] / "model.safetensors"), read_tensors(warm / "model.safetensors")
    dataset = load_dataset(now / "data")
    seed_step(run.seed)
    fresh = recommender(run).build(run, run_files(warm).inputs, dataset.train_counts).state_dict()
    assert carried.keys() == old.keys() == fresh.keys()
    for key in carried:
        if name in ANEW and key.startswith(ANEW[name]):
            continue
        if key not in BY_ITEM.get(name, []):
            assert torch.equal(carried[key], old[key]), key
            continue
        assert torch.equal(carried[key][0], old[key][0])
        for number, raw in enumerate(SECOND, 1):
            expected = old[key][FIRST.index(raw) + 1] if raw in FIRST else fresh[key][number].cpu()
            assert torch.equal(carried[key][number], expected), (key, raw)
    # the two weeks really differ: otherwise rows by number would do as well
    assert [SECOND.index(raw) - FIRST.index(raw) for raw in KEPT] != [0] * len(KEPT)
    assert described(warm)["warm_start"] | {"model": "", "weights": ""} == {
        "model": "", "weights": "", "kept": 23, "added": 3, "gone": 3,
    }  # fmt: skip


def test_transitions_are_counted_anew(weeks: dict[str, Path]) -> None:
    """In the histories of the training that goes on, under the numbers that items have there."""
    now = weeks["now"]
    warm = train(now, resolved("markov_mixture", epochs=0), weeks["markov_mixture"], name="counted")
    totals = read_tensors(warm / "model.safetensors")["chain.totals"]
    offsets, items = load_dataset(now / "data").train_histories()
    ends = offsets[1:][offsets[1:] > offsets[:-1]] - 1
    assert totals.tolist() == np.bincount(np.delete(items, ends), minlength=len(SECOND) + 1).tolist()


def test_every_kind_with_weights_says_what_has_a_row_an_item() -> None:
    for family, silent in (("items", ItemEncoder.item_rows), ("systems", Recommender.item_rows)):
        for kind in members(family):
            if family == "items" or issubclass(kind, TrainedSystem):
                assert implementation(kind.model_construct()).item_rows is not silent, kind


@pytest.mark.parametrize("name", ["ids", "codes"])
@pytest.mark.parametrize("backbone", ["sasrec", "gru4rec", "bert4rec"])
def test_items_that_stay_keep_their_scores(
    name: str, backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The independent check: the same histories get the same scores, though every item has another number."""
    system = {"items": {"semantic_ids": "c", "adapter": [8]}} if name == "codes" else SYSTEMS[name]
    monkeypatch.setitem(SYSTEMS, name, system)
    write_data(tmp_path / "before/data", write_log(second=False), FIRST, "leave_one_out")
    write_data(tmp_path / "now/data", write_log(), SECOND, "global_temporal", CUT)
    write_reads(tmp_path / "before", FIRST)
    write_reads(tmp_path / "now", SECOND)
    first = train(tmp_path / "before", resolved(name, backbone))
    warm = train(tmp_path / "now", resolved(name, backbone, epochs=0), first)
    histories = [["i05", "i06", "i20"], ["i11"], ["i25", "i03"]]
    scores = []
    for folder in (first, warm):
        shop = tessera.load(folder, device="cpu")
        lists = shop.recommend(histories, k=len(FIRST), seen=True)
        scores.append(lists[lists.item.isin(KEPT)].set_index(["history", "item"]).score.sort_index())
    assert len(scores[0]) == 3 * len(KEPT)
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- the start counts


def test_the_weights_as_they_came_are_validated_first(weeks: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    now, run = weeks["now"], resolved("ids", epochs=4)
    with caplog.at_level(logging.INFO, "tessera"):
        warm = train(now, run, weeks["ids"], name="first")
    description, rows = described(warm), curve(warm)
    assert f"continues from {weeks['ids']}: 23 items kept, 3 added, 3 gone" in caplog.text
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3, 4]
    assert description["epochs"] == 4
    assert description["best_epoch"] == max(rows, key=lambda row: row["NDCG@10"])["epoch"]
    copied = train(now, resolved("ids", epochs=0), weeks["ids"], name="copied")
    dataset = load_dataset(now / "data")
    scorer = load_scorer(copied / "model.safetensors", run, dataset.train_counts, run_files(copied).inputs)
    judged = validation_metrics(scorer, dataset.cases("valid"), Evaluation(batch_users=512))
    assert rows[0]["NDCG@10"] == judged["NDCG@10"] == described(copied)["validation"] > 0
    assert described(copied)["best_epoch"] == described(copied)["epochs"] == 0
    assert rows[0]["NDCG@10"] > 0.4, "last week's weights are worth something"


@pytest.mark.parametrize("tau", [0.0, 0.7])
def test_what_the_config_says_is_not_taken_from_the_start(
    tau: float, weeks: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {**SYSTEMS["cider"], "counterfactual": {"tau": tau, **({"keep": "last"} if tau else {})}}
    monkeypatch.setitem(SYSTEMS, "cider", own)
    warm = train(weeks["now"], resolved("cider", epochs=0), weeks["cider"], name=f"tau-{tau}")
    assert float(read_tensors(weeks["cider"] / "model.safetensors")["tau"]) == pytest.approx(0.4)
    assert float(read_tensors(warm / "model.safetensors")["tau"]) == pytest.approx(tau)


def test_a_training_that_spoils_its_start_keeps_it(weeks: dict[str, Path]) -> None:
    run = resolved("ids", epochs=9, patience=2, learning_rate=1.0)
    warm = train(weeks["now"], run, weeks["ids"], name="spoiled")
    description = described(warm)
    assert (description["best_epoch"], description["epochs"]) == (0, 2)
    assert description["validation"] == curve(warm)[0]["NDCG@10"]
    copied = train(weeks["now"], resolved("ids", epochs=0), weeks["ids"], name="copied")
    assert (warm / "model.safetensors").read_bytes() == (copied / "model.safetensors").read_bytes()
    # what is trained on everything then takes no epoch either, and can be opened
    final = train(weeks["now"], run, weeks["ids"], warm / "model.json", name="final")
    assert (final / "model.safetensors").read_bytes() == (copied / "model.safetensors").read_bytes()
    assert len(tessera.load(final, device="cpu").recommend(["i05"], k=3)) == 3


# ---------------------------------------------------------------- the same numbers


@pytest.mark.parametrize("after", [0, 1, 9])
@pytest.mark.parametrize("name", ["ids", "tiger"])
def test_one_that_was_stopped_goes_on_to_the_same_bytes(name: str, after: int, weeks: dict[str, Path]) -> None:
    now, run = weeks["now"], resolved(name, epochs=2, checkpoint_seconds=0.0)
    whole = train(now, run, weeks[name], name="whole")
    with stopped_after(after):
        train(now, run, weeks[name], name=f"stopped-{after}")
    assert list((now / "state").rglob("checkpoint.safetensors"))
    stopped = train(now, run, weeks[name], name=f"stopped-{after}")
    assert (stopped / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    timeless = [[{k: v for k, v in row.items() if "second" not in k} for row in curve(one)] for one in (stopped, whole)]
    assert timeless[0] == timeless[1]


def test_a_stop_while_the_start_is_validated_begins_again(
    weeks: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    now, run = weeks["now"], resolved("ids", epochs=2, checkpoint_seconds=0.0)
    whole = train(now, run, weeks["ids"], name="whole")
    validate = Engine._validate

    def stopping(self: Engine, *arguments: Any) -> Any:
        raise Terminated

    monkeypatch.setattr(Engine, "_validate", stopping)
    with pytest.raises(Terminated):
        train(now, run, weeks["ids"], name="early")
    monkeypatch.setattr(Engine, "_validate", validate)
    early = train(now, run, weeks["ids"], name="early")
    assert (early / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert [row["epoch"] for row in curve(early)] == [0, 1, 2]


def test_the_state_is_named_by_what_the_start_holds(weeks: dict[str, Path], tmp_path: Path) -> None:
    run, now = resolved("ids"), weeks["now"]
    start = tessera.load(weeks["ids"], device="cpu").save(tmp_path / "saved") / "model.safetensors"
    inputs = run_files(train(now, run, name="cold")).inputs
    names = [run_identity(run, now / "data", inputs, "")]
    warm = inputs.model_copy(update={"start": str(start)})
    names.append(run_identity(run, now / "data", warm, ""))
    for file in (start, start.with_name("items.parquet")):
        file.write_bytes(file.read_bytes() + b" ")
        names.append(run_identity(run, now / "data", warm, ""))
    assert len(set(names)) == 4


@pytest.mark.parametrize("changes", [{"grid": [0.1, 0.4]}, {"weight": 0.2}, {"kept": 5}])
def test_what_a_training_counts_and_chooses_anew_may_have_another_shape(
    changes: dict[str, Any], weeks: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SYSTEMS, "markov_mixture", SYSTEMS["markov_mixture"] | changes)
    warm = train(weeks["now"], resolved("markov_mixture", epochs=0), weeks["markov_mixture"], name="reshaped")
    old, carried = (read_tensors(folder / "model.safetensors") for folder in (weeks["markov_mixture"], warm))
    assert (
        carried["tried"].shape != old["tried"].shape or carried["chain.followers"].shape != old["chain.followers"].shape
    )
    assert torch.equal(carried["base.items.residual"][0], old["base.items.residual"][0])
    there = [(FIRST.index(raw) + 1, SECOND.index(raw) + 1) for raw in KEPT]
    assert all(torch.equal(carried["base.items.residual"][b], old["base.items.residual"][a]) for a, b in there)


# ---------------------------------------------------------------- what cannot go on


def test_a_shape_that_differs_is_told(weeks: dict[str, Path]) -> None:
    run = resolved("ids")
    assert run.backbone is not None
    wider = run.model_copy(update={"backbone": run.backbone.model_copy(update={"dim": 32})})
    with pytest.raises(WarmStartError, match=r"before/runs.*items\.weight has shape \(27, 16\), expected \(27, 32\)"):
        train(weeks["now"], wider, weeks["ids"], name="refused")
    with pytest.raises(WarmStartError, match=r"lacks items\.\w+.*, unlike the system that is to go on from it"):
        train(weeks["now"], resolved("table"), weeks["ids"], name="refused")
    assert not list((weeks["now"] / "runs").glob("refused*/**/model.json"))


def test_a_kind_that_does_not_say_is_refused(weeks: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(IdItemEncoder, "item_rows", ItemEncoder.item_rows)
    with pytest.raises(WarmStartError, match=r"IdItemEncoder does not say which of its weights have a row an item"):
        train(weeks["now"], resolved("ids"), weeks["ids"], name="silent")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"user_tokens": 5, "encoder": "bidirectional"}, "users have other numbers"),
        ({"tokens": "prefixes"}, "prefixes"),
    ],
)
def test_what_is_numbered_anew_is_refused(
    changes: dict[str, Any], words: str, weeks: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SYSTEMS, "tiger", TIGER | changes)
    validated = weeks["world"] / "validated.json"
    first = train(weeks["before"], resolved("tiger"), validated=validated, name="odd")
    with pytest.raises(WarmStartError, match=words):
        train(weeks["now"], resolved("tiger"), first, name="odd")
    shutil.rmtree(first)


@pytest.mark.parametrize("name", ["codes", "tiger", "mme_sid"])
def test_other_codes_are_refused(name: str, weeks: dict[str, Path], tmp_path: Path) -> None:
    now = tmp_path / "now"
    shutil.copytree(weeks["now"] / "data", now / "data")
    write_reads(now, SECOND, shift=1)
    with pytest.raises(WarmStartError, match=r"codes\.parquet: 23 of 23 items that stay have other semantic IDs"):
        train(now, resolved(name), weeks[name])
    write_reads(now, SECOND)
    train(now, resolved(name, epochs=0), weeks[name])
    before = tmp_path / "before"
    shutil.copytree(weeks["before"], before)
    shutil.rmtree(before / "semantic_ids")
    run = resolved(name)
    with pytest.raises(WarmStartError, match="are not there any more"):
        train(now, run, before / weeks[name].relative_to(weeks["before"]), name="again")


def test_adapters_fit_their_own_language_model_alone(weeks: dict[str, Path], tmp_path: Path) -> None:
    now = tmp_path / "now"
    shutil.copytree(weeks["now"] / "data", now / "data")
    write_reads(now, SECOND)
    file = now / "models/tiny/model.safetensors"
    tensors = read_tensors(file)
    from safetensors.torch import save_file

    save_file({key: value + 0.01 for key, value in tensors.items()}, file, {"format": "pt"})
    with pytest.raises(WarmStartError, match="is not the language model that"):
        train(now, resolved("mme_sid"), weeks["mme_sid"])


def test_a_table_that_became_another_is_told(
    weeks: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now, run = tmp_path / "now", resolved("table", epochs=0)
    shutil.copytree(weeks["now"] / "data", now / "data")
    write_reads(now, SECOND)
    train(now, run, weeks["table"])
    assert "mean cosine" not in caplog.text
    from tessera.artifacts.tables import read_item_table, write_item_table

    vectors, _ = read_item_table(now / "tables/t.parquet", len(SECOND))
    write_item_table(now / "tables/t.parquet", np.arange(1, len(SECOND) + 1), -vectors[1:])
    train(now, run, weeks["table"], name="again")
    assert "table t: the vectors of items that stay have a mean cosine of -1.00" in caplog.text


def test_items_that_are_not_those_of_the_weights_are_refused(weeks: dict[str, Path], tmp_path: Path) -> None:
    before = tmp_path / "before"
    shutil.copytree(weeks["before"], before)
    start = before / weeks["ids"].relative_to(weeks["before"])
    write_data(before / "data", write_log(second=False), sorted(FIRST, reverse=True), "none")
    with pytest.raises(
        WarmStartError, match=r"items\.parquet: holds 26 items, which are not the 26 that .* trained on"
    ):
        train(weeks["now"], resolved("ids"), start, name="odd")
    strangers = [f"x{raw}" for raw in FIRST]
    write_data(tmp_path / "other/data", [(u, f"x{i}", t) for u, i, t in write_log(second=False)], strangers, "none")
    other = train(tmp_path / "other", resolved("ids"), validated=weeks["world"] / "validated.json")
    with pytest.raises(WarmStartError, match=r"none of its 26 items \(the first is 'xi00'\) is in the dataset"):
        train(weeks["now"], resolved("ids"), other, name="odd")


# ---------------------------------------------------------------- what was seen before


def now_under(root: Path, split: str, cut: int = 0, **options: Any) -> Path:
    write_data(root / "data", write_log(), SECOND, split, cut, **options)
    return root


def test_a_run_says_what_it_was_trained_on(weeks: dict[str, Path]) -> None:
    description = described(weeks["ids"])["trained_on"]
    rows = write_log(second=False)
    assert description["interactions"] == len(rows)
    assert description["split"] == "none"
    assert description["last"] == {"ticks": max(time for _, _, time in rows), "unit": "s", "dated": True}


@pytest.mark.parametrize("unit", [1, 1000])
def test_under_a_split_by_time_nothing_as_late_as_the_first_target_may_have_trained(
    unit: int, weeks: dict[str, Path], tmp_path: Path
) -> None:
    """Whatever the clocks count; the last week ends with an item that is still there."""
    last = max(time for _, _, time in write_log(second=False))
    run = resolved("ids", epochs=0)
    assert any(time == last and item in SECOND for _, item, time in write_log())
    for cut, leaks in ((last + 1, False), (last, True), (last - 100, True)):
        now = now_under(tmp_path / f"cut-{cut}", "global_temporal", cut, unit=unit)
        if leaks:
            with pytest.raises(WarmStartError, match=r"was trained on interactions up to 1970-.* on those from 1970-"):
                train(now, run, weeks["ids"])
            assert not list(now.rglob("model.json"))
        else:
            assert described(train(now, run, weeks["ids"]))["remarks"] == []


def test_moments_of_unlike_clocks() -> None:
    five, same, later = Moment(5, "s", True), Moment(5000, "ms", True), Moment(5_000_001, "us", True)
    assert not five.before(same)
    assert not same.before(five)
    assert five.before(later)
    assert same.before(later)
    assert five.before(Moment(6, "s", False)) is None


def test_what_one_split_by_user_held_out_another_may_have_trained_on(weeks: dict[str, Path], tmp_path: Path) -> None:
    """Users who stayed away hold out what a final run of last week has learned; a validated one of it has not."""
    run, now = resolved("ids", epochs=0), now_under(tmp_path / "now", "leave_one_out")
    rows, catalogue = write_log(), set(SECOND)
    away = 0
    for user in dict.fromkeys(name for name, _, _ in rows):
        own = [time for name, item, time in rows if name == user and item in catalogue]
        away += sum(time < WEEK for time in own[-2:]) * (len(own) >= 3)
    assert away
    with pytest.raises(WarmStartError, match=rf"was trained on {away} of the \d+ interactions that are held out here"):
        train(now, run, weeks["ids"])
    write_data(tmp_path / "before/data", write_log(second=False), FIRST, "leave_one_out")
    validated = train(tmp_path / "before", resolved("ids"))
    # an item that is gone moves back what its user holds out: here to what a validated run has learned
    moved = 0
    for user in dict.fromkeys(name for name, _, _ in rows):
        whole = [row for row in rows if row[0] == user and row[2] < WEEK]
        own = [row for row in rows if row[0] == user and row[1] in catalogue]
        moved += len({*own[-2:]} & {*(whole[:-2] if len(whole) >= 3 else whole)}) * (len(own) >= 3)
    assert moved
    with pytest.raises(WarmStartError, match=rf"was trained on {moved} of"):
        train(now, run, validated)
    stays = [row for row in rows if row[1] in catalogue and row[1] in FIRST]
    write_data(tmp_path / "first/data", [row for row in stays if row[2] < WEEK], FIRST, "leave_one_out")
    write_data(tmp_path / "then/data", stays, SECOND, "leave_one_out")
    clean = train(tmp_path / "first", resolved("ids"))
    assert described(train(tmp_path / "then", run, clean))["remarks"] == []


def test_logs_without_times_are_compared_by_counts(tmp_path: Path) -> None:
    """An item that comes twice tells nothing of the time that is held out."""
    twice = [("u", item, 0) for item in ("i00", "i01", "i00", "i02", "i03", "i00")]
    now = write_data(tmp_path / "now", twice, FIRST, "leave_one_out", timed=False)
    for rows, expected in ((twice[:3], 0), (twice[:5], 1), (twice, 2)):
        earlier = write_data(tmp_path / f"before-{len(rows)}", rows, FIRST, "none", timed=False)
        seen = seen_before(now, earlier)
        assert seen is not None
        assert (seen.number, seen.of) == (expected, 2)
    timed = write_data(tmp_path / "timed", twice, FIRST, "none")
    assert seen_before(now, timed) is None


def test_where_nobody_knows_every_number_says_so(weeks: dict[str, Path], tmp_path: Path) -> None:
    """A saved run has no interactions beside it; times alone may still clear it."""
    saved = tessera.load(weeks["ids"], device="cpu").save(tmp_path / "saved")
    run = resolved("ids", epochs=0)
    now = now_under(tmp_path / "now", "leave_one_out")
    warm = train(now, run, saved)
    assert described(warm)["remarks"] == [UNKNOWN]
    evaluate_run(
        run, Evaluation(), warm / "model.safetensors", now / "data", run_files(warm).inputs, None,
        warm / "evaluation.parquet", warm / "metrics.json",
    )  # fmt: skip
    assert json.loads((warm / "metrics.json").read_text())["remarks"] == [UNKNOWN]
    later = now_under(tmp_path / "later", "global_temporal", CUT)
    assert described(train(later, run, saved))["remarks"] == []


def test_what_the_start_of_the_start_saw_counts(weeks: dict[str, Path], tmp_path: Path) -> None:
    """A run whose own data is clean went on from one that saw what is held out."""
    run = resolved("ids", epochs=0)
    rows = [row for row in write_log() if row[2] < 40]  # before the other one ends
    write_data(tmp_path / "between/data", rows, FIRST, "none")
    between = train(tmp_path / "between", run, weeks["ids"], weeks["world"] / "validated.json")
    assert described(between)["trained_on"]["last"] == described(weeks["ids"])["trained_on"]["last"]
    with pytest.raises(WarmStartError, match=r"before/data"):
        train(now_under(tmp_path / "now", "leave_one_out"), run, between)
    with pytest.raises(WarmStartError, match="was trained on interactions up to"):
        train(now_under(tmp_path / "timed", "global_temporal", 100), run, between)
    description = described(between)
    description["warm_start"]["weights"] = "0" * 16  # it was trained again since
    (between / "model.json").write_text(json.dumps(description))
    clean = [row for row in write_log() if row[2] >= 40]
    write_data(tmp_path / "clean/data", clean, SECOND, "leave_one_out")
    assert described(train(tmp_path / "clean", run, between))["remarks"] == [UNKNOWN]


def test_nothing_held_out_nothing_to_leak(weeks: dict[str, Path], tmp_path: Path) -> None:
    run: Run = resolved("ids")
    now = now_under(tmp_path / "now", "none")
    warm = train(now, run, weeks["ids"], weeks["world"] / "validated.json")
    assert described(warm)["remarks"] == []
    assert [row["epoch"] for row in curve(warm)] == [1, 2, 3]
    last = max(time for _, item, time in write_log() if item in SECOND)
    assert described(warm)["trained_on"]["last"]["ticks"] == last
