"""Folders of experiments: what they are called, whose they are, and what one takes over from another."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tessera.artifacts.files import read_json, write_text
from tessera.artifacts.places import far, is_near, near, state_folder
from tessera.data.picture_stamp import write_stamp
from tessera.plan import reuse
from tessera.plan.graph import Plan
from tessera.plan.jobs import Jobs
from tessera.plan.owner import OWNER, check_owner, others, write_owner
from tessera.plan.reuse import TIMESTAMP, Job, Record, Reuse, taken_over
from tessera.settings.base import ConfigError
from tessera.settings.config import load
from tessera.settings.files import experiment_name, name_of_experiment

ROOT = Path(__file__).resolve().parents[3]
SHIPPED = sorted((ROOT / "config").glob("*.yaml"))
PROGRAMS = [("workflow", "smk"), ("scripts", "py"), ("src", "py"), ("tools", "py")]
SMALL: dict[str, Any] = {"datasets": {"shop": {"source": "bazaar"}}, "experiment": {"datasets": ["shop"]}}


# ---------------------------------------------------------------- names


def test_no_shipped_config_overwrites_another() -> None:
    names = {path: name_of_experiment([path], {}) for path in SHIPPED}
    for overlay in (ROOT / "config/overlays").glob("*.yaml"):
        names[overlay] = name_of_experiment([ROOT / "config/config.yaml", overlay], {})
    assert [name for name, count in Counter(names.values()).items() if count > 1] == []
    assert names[ROOT / "config/config.yaml"] == "demo"
    assert names[ROOT / "config/tiny.yaml"] == "tiny"
    for path in SHIPPED:
        config = load(yaml.safe_load(path.read_text()), str(path), experiment_name([path]))
        assert Jobs(Plan(config)).root == f"results/{names[path]}"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["my.yaml"], "my"),
        (["config/tiny.yaml", "config/more.yaml"], "more"),
        (["config/config.yaml", "config/overlays/other.yaml"], "config"),
        (["config/overlays/other.yaml"], "other"),
        (["/a/b/my first (try).yaml"], "my-first-try"),
        (["ml-100k.time.yaml"], "ml-100k.time"),
        (["日本.yaml"], "experiment"),
        (["/dev/fd/63"], "experiment"),
        ([], "experiment"),
    ],
)
def test_without_a_name_it_is_called_as_its_file(files: list[str], expected: str) -> None:
    assert experiment_name(files) == expected
    assert load(SMALL, "config", expected).experiment.name == expected


def test_the_name_that_is_said_last(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("experiment: {name: one}\n")
    second.write_text("training: {epochs: 2}\n")
    assert name_of_experiment([first, second], {}) == "one"
    assert name_of_experiment([first, second], {"experiment": {"name": "two"}}) == "two"
    assert name_of_experiment([second], {"experiment": {"seeds": [1]}}) == "second"


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "", "two words", "näme", "a\n"])
def test_a_name_is_a_plain_folder(name: str) -> None:
    config = {**SMALL, "experiment": {"datasets": ["shop"], "name": name}}
    with pytest.raises(ConfigError, match=r"my\.yaml: experiment\.name: .* names no folder below results/"):
        load(config, "my.yaml")


def test_a_dataset_takes_no_place_of_the_experiment() -> None:
    for name in ("logs", "report", "tables", "benchmarks", OWNER):
        config = {"datasets": {name: {"source": "bazaar"}}, "experiment": {"datasets": [name]}}
        with pytest.raises(ConfigError, match="taken by a folder of results"):
            load(config)


@pytest.mark.parametrize("kind", ["claims", "robustness"])
def test_a_dataset_takes_no_place_of_anothers_tables(kind: str) -> None:
    names = ["shop", f"shop-{kind}"]
    with pytest.raises(ConfigError, match=f"datasets.shop-{kind}: a table of 'shop' has this name"):
        load({"datasets": {name: {"source": "bazaar"} for name in names}, "experiment": {"datasets": names}})
    load({"datasets": {names[1]: {"source": "bazaar"}}, "experiment": {"datasets": names[1:]}})


def test_state_lies_apart() -> None:
    made = "results/my/shop/runs/id/sasrec/seed-1/model.safetensors"
    assert state_folder(made) == Path("state/my/shop+runs+id+sasrec+seed-1+model")
    others = ["results/my/other/runs/id/sasrec/seed-1/model.safetensors", "results/my/shop/tables/id.parquet"]
    long = [f"results/my/{'shop' * 20}/runs/{'system' * 30}/sasrec/seed-{seed}/model.safetensors" for seed in (1, 2)]
    folders = {state_folder(path) for path in (made, *others, *long)}
    assert len(folders) == 5
    assert max(len(folder.name) for folder in folders) <= 200


def test_a_folder_that_is_near_moves_along(tmp_path: Path) -> None:
    (tmp_path / "one/shop/raw/images").mkdir(parents=True)
    stored = near(tmp_path / "one/shop/raw/images", tmp_path / "one/shop")
    assert stored == "./raw/images"
    (tmp_path / "one").rename(tmp_path / "two")
    assert Path(far(stored, tmp_path / "two/shop")).is_dir()
    beside = near(tmp_path / "two/shop/raw/images", tmp_path / "two/shop-final")
    assert far(beside, tmp_path / "two/shop-final") == str(tmp_path / "two/shop/raw/images")
    for given in ("data", "/data/pictures", "../data", str(Path("./data"))):
        assert not is_near(given)
        assert far(given, tmp_path / "two/shop") == given


def test_no_other_place_spells_the_folders() -> None:
    parts = ["Snakefile", *(f"{folder}/**/*.{ending}" for folder, ending in PROGRAMS)]
    for path in (path for part in parts for path in ROOT.glob(part)):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"[\"']results/|[\"']state/", text), f"{path}: Jobs.root, <results>, artifacts.places"
        # a root of pictures may be told from the dataset's folder; a map hands on what items.parquet says
        own = {"artifacts/tables.py", "data/prepare.py", "evaluation/atlas.py"}
        assert '"image_root"' not in text or any(path.match(one) for one in own), f"{path}: artifacts.tables.image_root"


# ---------------------------------------------------------------- whose a folder is


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with configs of the same name in two places."""
    (tmp_path / "work/other").mkdir(parents=True)
    for path in ("work/my.yaml", "work/other/my.yaml", "work/more.yaml"):
        (tmp_path / path).write_text("{}\n")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def test_another_config_is_refused(workplace: Path) -> None:
    check_owner("results/my", ["my.yaml"], "my.yaml")
    write_owner("results/my", ["my.yaml"])
    with pytest.raises(ConfigError) as refused:
        check_owner("results/my", ["other/my.yaml"], "other/my.yaml")
    message = str(refused.value)
    assert "\n" not in message
    for part in ("other/my.yaml: experiment.name", "holds what my.yaml made", "name: my-2", "delete results/my and"):
        assert part in message
    with pytest.raises(ConfigError, match=r"this run of my\.yaml with more\.yaml would"):
        check_owner("results/my", ["my.yaml", "more.yaml"], "more.yaml")


def test_the_same_config_is_accepted_however_it_is_given(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_owner("results/my", ["my.yaml"])
    (workplace / "my.yaml").write_text("edited: true\n")
    (workplace / "link.yaml").symlink_to("my.yaml")
    for path in ("my.yaml", "other/../my.yaml", workplace / "my.yaml", "link.yaml"):
        check_owner("results/my", [path], "my.yaml")
    for copied in (True, False):
        moved = workplace.with_name(f"moved-{copied}")
        (shutil.copytree if copied else shutil.move)(workplace, moved)  # type: ignore[operator]
        monkeypatch.chdir(moved)
        check_owner("results/my", ["my.yaml"], "my.yaml")
        check_owner("results/my", [moved / "my.yaml"], "my.yaml")


def test_what_is_gone_or_no_file_owns_nothing(workplace: Path) -> None:
    write_owner("results/my", [workplace.parent / "work/other/my.yaml"])
    (workplace / "other/my.yaml").unlink()
    check_owner("results/my", ["my.yaml"], "my.yaml")
    write_owner("results/pipe", ["/dev/null"])
    check_owner("results/pipe", ["my.yaml"], "my.yaml")
    write_owner("results/my", ["my.yaml"])
    check_owner("results/my", ["/dev/null"], "my.yaml")


def test_an_owner_is_written_once_and_siblings_have_one(workplace: Path) -> None:
    for name in ("a", "b"):
        write_owner(f"results/{name}", ["my.yaml"])
    (workplace / "results/old-layout").mkdir()
    assert read_json("results/a/experiment.json") == {"configs": ["my.yaml"]}
    before = Path("results/a", OWNER).stat()
    write_owner("results/a", [workplace / "my.yaml"])
    assert Path("results/a", OWNER).stat().st_mtime_ns == before.st_mtime_ns
    assert others("results/a") == [Path("results/b")]


# ---------------------------------------------------------------- what is taken over


class Kept(dict[str, Record]):
    """Records in memory; of an output that is being made there is none."""

    def read(self, output: str) -> Record | None:
        return self.get(output)

    def write(self, output: str, record: Record) -> None:
        self[output] = record


def job(root: str, rule: str = "prepare", params: Iterable[str] = ("'a'",), **changed: Any) -> Job:
    given: dict[str, Any] = {
        "inputs": (f"{root}/shop/raw/log.parquet", "log.csv"),
        "outputs": (f"{root}/shop/data/rows.parquet", f"{root}/shop/models/small"),
        "logs": (f"{root}/logs/prepare/shop.log",),
    }
    return Job(rule, params=lambda: frozenset(params), **{**given, **changed})


def finish(made: Job, records: Kept) -> None:
    """Leave what the job leaves."""
    for output in made.outputs:
        if output.endswith("small"):
            write_text(f"{output}/deep/weights", "weights")
            write_text(f"{output}/{TIMESTAMP}", "")
        else:
            write_text(output, "rows")
        records[output] = {
            "rule": made.rule, "input": sorted(made.inputs), "params": sorted(made.params()), "log": list(made.logs),
            "input_checksums": dict.fromkeys(made.inputs, "sha256:1"), "endtime": 1.5, "shellcmd": None,
        }  # fmt: skip
    for path in made.logs:
        write_text(path, f"made {made.outputs[0]}")


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kept:
    """A finished job in results/a, whose input results/b has taken already."""
    monkeypatch.chdir(tmp_path)
    kept = Kept()
    write_text("results/a/shop/raw/log.parquet", "log")
    Path("results/b/shop/raw").mkdir(parents=True)
    os.link("results/a/shop/raw/log.parquet", "results/b/shop/raw/log.parquet")
    finish(job("results/a"), kept)
    return kept


def test_what_agrees_is_linked_with_its_record(records: Kept) -> None:
    taken = Reuse("results/b", ["results/a"], records)
    assert taken.take(job("results/b"))
    for path in ("shop/data/rows.parquet", "shop/models/small/deep/weights", f"shop/models/small/{TIMESTAMP}"):
        assert Path("results/b", path).samefile(Path("results/a", path))
    record = records["results/b/shop/models/small"]
    assert record["input"] == sorted(job("results/b").inputs)
    assert set(record["input_checksums"]) == set(job("results/b").inputs)
    assert record["log"] == ["results/b/logs/prepare/shop.log"]
    assert "results/a" not in str(record)
    log = Path("results/b/logs/prepare/shop.log")
    assert log.read_text() == "made results/a/shop/data/rows.parquet"
    assert not log.samefile("results/a/logs/prepare/shop.log"), "logs are written on"
    assert taken_over(taken.taken) == "1 result of other experiments agree and are taken over: 1 from results/a"
    assert not Reuse("results/b", ["results/a"], records).take(job("results/b")), "it is there"


def other_input(records: Kept) -> Job:
    Path("results/b/shop/raw/log.parquet").unlink()
    write_text("results/b/shop/raw/log.parquet", "lag")
    return job("results/b")


def missing_input(records: Kept) -> Job:
    Path("results/b/shop/raw/log.parquet").unlink()
    return job("results/b")


def missing_output(records: Kept) -> Job:
    Path("results/a/shop/data/rows.parquet").unlink()
    return job("results/b")


def no_record(records: Kept) -> Job:
    del records["results/a/shop/data/rows.parquet"]
    return job("results/b")


@pytest.mark.parametrize(
    "change",
    [
        other_input, missing_input, missing_output, no_record,
        lambda records: job("results/b", params=["'a'", "'b'"]),
        lambda records: job("results/b", params=["'b'"]),
        lambda records: job("results/b", rule="ingest"),
        lambda records: job("results/b", inputs=(*job("results/b").inputs, "more.csv")),
        lambda records: job("results/b", inputs=("results/b/shop/raw/log.parquet", "other.csv")),
    ],
)  # fmt: skip
def test_what_does_not_agree_is_left_alone(records: Kept, change: Callable[[Kept], Job]) -> None:
    wanted = change(records)
    before = dict(records)
    assert not Reuse("results/b", ["results/a"], records).take(wanted)
    assert not Path("results/b/shop/data").exists()
    assert records == before


def test_the_sibling_that_agrees_is_looked_for(records: Kept) -> None:
    finish(job("results/0", params=["'other'"]), records)
    taken = Reuse("results/b", ["results/0", "results/a"], records)
    assert taken.take(job("results/b"))
    assert taken.taken == {"results/a": 1}


def test_a_job_of_which_one_output_is_lost_is_taken_whole(records: Kept) -> None:
    write_text("results/b/shop/data/rows.parquet", "old rows")
    write_text("results/b/shop/.small.taken/left", "by a kill")
    assert Reuse("results/b", ["results/a"], records).take(job("results/b"))
    assert Path("results/b/shop/data/rows.parquet").read_text() == "rows"
    assert Path("results/a/shop/data/rows.parquet").samefile("results/b/shop/data/rows.parquet")


@pytest.mark.parametrize("lost", ["rows.parquet", "weights"])
def test_what_a_run_beside_this_one_removes_meanwhile_is_not_taken(
    records: Kept, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    real = os.link

    def link(source: Any, target: Any, **options: Any) -> None:
        if str(source).endswith(lost):
            Path(source).unlink()
        real(source, target, **options)

    monkeypatch.setattr(os, "link", link)
    taking = Reuse("results/b", ["results/a"], records)
    assert not taking.take(job("results/b"))
    assert not job("results/b").there, "it is made here"
    assert not taking.taken


@pytest.fixture
def parts(records: Kept) -> tuple[Callable[[str], Job], Callable[[str], Job]]:
    """Two jobs of which results/a has removed what the first made, once the second had read it."""

    def part(root: str) -> Job:
        inputs, output = (f"{root}/shop/raw/log.parquet",), f"{root}/shop/captions/told.part-0.json"
        return job(root, "part", inputs=inputs, outputs=(output,), logs=(), temporary=True)

    def whole(root: str) -> Job:
        inputs = (f"{root}/shop/raw/log.parquet", *part(root).outputs)
        return job(root, "whole", inputs=inputs, outputs=(f"{root}/shop/captions/told.parquet",), logs=())

    finish(part("results/a"), records)
    finish(whole("results/a"), records)
    Path(part("results/a").outputs[0]).unlink()
    return part, whole


def test_what_was_made_of_removed_files_is_taken(
    records: Kept, parts: tuple[Callable[[str], Job], Callable[[str], Job]]
) -> None:
    part, whole = parts
    (removed,), (output,) = part("results/b").outputs, whole("results/b").outputs
    taking = Reuse("results/b", ["results/a"], records)
    assert not taking.take(part("results/b"))
    assert removed not in records, "nothing is recorded before something is taken"
    assert taking.take(whole("results/b"))
    assert Path(output).samefile(whole("results/a").outputs[0])
    assert not Path(removed).exists()
    assert records[removed]["input"] == list(part("results/b").inputs)
    assert taking.taken == {"results/a": 1}


@pytest.mark.parametrize("change", ["params", "record", "own"])
def test_what_was_made_of_other_removed_files_is_not(
    records: Kept, parts: tuple[Callable[[str], Job], Callable[[str], Job]], change: str
) -> None:
    part, whole = parts
    first = part("results/b")
    if change == "params":
        first = job("results/b", "part", ["'b'"], inputs=first.inputs, outputs=first.outputs, temporary=True)
    elif change == "record":
        del records[part("results/a").outputs[0]]
    else:
        write_text(first.outputs[0], "made here, and not read yet")
    taking = Reuse("results/b", ["results/a"], records)
    assert not taking.take(first)
    assert not taking.take(whole("results/b"))
    assert not Path(whole("results/b").outputs[0]).exists()


@pytest.mark.parametrize("changed", [False, True])
def test_pictures_that_changed_since_are_seen(records: Kept, changed: bool) -> None:
    """The sibling does not know yet that a picture is another one; nothing that it made of pictures is taken then."""
    write_text("shop/pictures/1.jpg", "a picture")

    def ingest(root: str) -> Job:
        outputs = (f"{root}/shop/raw/items.parquet", f"{root}/shop/raw/pictures.json")
        return job(root, "ingest", inputs=("log.csv",), outputs=outputs, logs=())

    def embed(root: str) -> Job:
        return job(root, "embed", inputs=ingest(root).outputs, outputs=(f"{root}/shop/tables/seen.parquet",), logs=())

    for made in (ingest("results/a"), embed("results/a")):
        finish(made, records)
    write_stamp(Path("results/a/shop/raw/pictures.json"), "shop/pictures")
    if changed:
        write_text("shop/pictures/1.jpg", "another picture")
    before = read_json(Path("results/a/shop/raw/pictures.json"))
    taking = Reuse("results/b", ["results/a"], records)
    assert taking.take(ingest("results/b"))
    assert taking.take(embed("results/b")) is not changed
    assert read_json(Path("results/a/shop/raw/pictures.json")) == before
    assert (read_json(Path("results/b/shop/raw/pictures.json")) == before) is not changed


def test_where_links_are_impossible_files_are_copied(records: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    assert Reuse("results/b", ["results/a"], records).take(job("results/b"))
    one, other = (Path(root, "shop/data/rows.parquet") for root in ("results/a", "results/b"))
    assert not one.samefile(other)
    assert one.stat().st_mtime_ns == other.stat().st_mtime_ns
    assert reuse.same(str(one), str(other)), "what reads it can be taken, too"
    assert reuse.same("results/a/shop/models/small", "results/b/shop/models/small")


def test_writers_replace_files(records: Kept) -> None:
    """A link that was taken is no way to write into the other folder."""
    assert Reuse("results/b", ["results/a"], records).take(job("results/b"))
    write_text("results/b/shop/data/rows.parquet", "newer rows")
    assert Path("results/a/shop/data/rows.parquet").read_text() == "rows"
