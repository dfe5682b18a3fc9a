"""Kinds in the working directory: found, and what is wrong with their files told in one line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tessera.plan.first_lines import check_first_lines
from tessera.plan.graph import Noun, Plan
from tessera.plan.jobs import Jobs
from tessera.plan.required import check_files, dataset_files
from tessera.settings.base import ConfigError
from tessera.settings.config import load
from tessera.settings.kinds import FAMILIES, implementation, settings_class

FOLDER = "kinds_of_a_test"
SETTINGS = """
from tessera.settings.backbones.base import BackboneSettings
from tessera.settings.base import PresetSettings
class Own(BackboneSettings):
    IMPLEMENTATION = "kinds_of_a_test.own:OwnBackbone"
    max_length: int = 20
class Bare(BackboneSettings):
    pass
class Lost(BackboneSettings):
    IMPLEMENTATION = "kinds_of_a_test.onw:OwnBackbone"
class Nameless(BackboneSettings):
    IMPLEMENTATION = "kinds_of_a_test.own:OwnBackbon"
class Half(BackboneSettings):
    IMPLEMENTATION = "kinds_of_a_test.own:OwnBackbone"
    PUBLISHED = "kinds_of_a_test.own_publishd:OwnBackbone"
class Twofold(PresetSettings, BackboneSettings):
    IMPLEMENTATION = "kinds_of_a_test.own:OwnBackbone"
    PUBLISHED = "kinds_of_a_test.own_published:Published"
    HABITS = ("late",)
    OFFICIAL = {"late": True}
    max_length: int = 20
    late: bool = False
class Heir(Twofold):
    IMPLEMENTATION = "kinds_of_a_test.heir:HeirBackbone"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with a package of kinds; nothing of it is left behind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    place = tmp_path / FOLDER
    place.mkdir()
    (place / "own_settings.py").write_text(SETTINGS)
    (place / "own.py").write_text("class OwnBackbone:\n    pass\n")
    (place / "heir.py").write_text("class HeirBackbone:\n    pass\n")
    published = "from kinds_of_a_test.own import OwnBackbone\nclass Published(OwnBackbone):\n    pass\n"
    (place / "own_published.py").write_text(published)
    (place / "broken.py").write_text("import nothing_of_this_name\n")
    (place / "wrong.py").write_text("class Half(\n")
    settings_class.cache_clear()
    yield place
    settings_class.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == FOLDER]:
        del sys.modules[name]


def config(tag: str) -> Any:
    return {
        "datasets": {"shop": {"source": "bazaar"}},
        "backbones": {"own": {"kind": tag}},
        "experiment": {"datasets": ["shop"], "systems": ["id"], "backbones": ["own"], "seeds": [1]},
    }


def test_it_is_found_and_its_two_files_are_the_runs(folder: Path) -> None:
    plan = Plan(load(config(f"{FOLDER}.own_settings:Own")))
    (run,) = plan.nouns
    assert run.name == "id/own/seed-1"
    assert {f"{FOLDER}.own_settings", f"{FOLDER}.own"} <= set(Jobs(plan).modules(run))
    # what a job reads of its params is the same again
    told = plan.runs[0].canonical()
    assert type(plan.runs[0]).model_validate_json(told).canonical() == told


HEIRS = {  # family -> a kind of the library, and the keys that it cannot do without
    "backbones": ("sasrec", {}),
    "items": ("ids", {}),
    "losses": ("cross_entropy", {}),
    "systems": ("markov", {}),
    "recipes": ("text", {"model": "small"}),
    "quantizers": ("rq_kmeans", {"tables": "text"}),
    "clicks": ("din", {}),
    "sources": ("columns", {"path": "log.csv", "user": "u", "item": "i"}),
}


@pytest.mark.parametrize("family", HEIRS)
def test_a_kind_of_the_library_can_be_extended(family: str, folder: Path) -> None:
    """Its tag is one name; the class that extends it has one of its own, and the library's keeps its name."""
    name, keys = HEIRS[family]
    base, key = settings_class(family, name), FAMILIES[family].key
    code = f"from {base.__module__} import {base.__name__}\n"
    (folder / "extended.py").write_text(
        f"{code}class Mine({base.__name__}):\n    IMPLEMENTATION = '{FOLDER}.own:OwnBackbone'\n    more: int = 3\n"
    )
    tag = f"{FOLDER}.extended:Mine"
    made = settings_class(family, tag).model_validate({key: tag, "more": 4, **keys})
    assert isinstance(made, base)
    assert (getattr(made, key), made.more) == (tag, 4)  # type: ignore[attr-defined]
    assert type(made).model_validate_json(made.canonical()) == made
    assert getattr(base.model_validate({key: name, **keys}), key) == name
    with pytest.raises(ValueError, match=key):
        base.model_validate({key: tag, **keys})


def test_its_published_form_is_loaded_where_it_is_wanted(folder: Path) -> None:
    for asked, name in (({}, "own"), ({"preset": "official"}, "own_published"), ({"late": True}, "own_published")):
        given = config(f"{FOLDER}.own_settings:Twofold")
        given["backbones"]["own"] |= asked
        plan = Plan(load(given))
        (run,) = plan.nouns
        assert {f"{FOLDER}.own", f"{FOLDER}.own_published"} & set(Jobs(plan).modules(run)) == {f"{FOLDER}.{name}"}
        assert implementation(plan.config.backbones["own"]).__module__ == f"{FOLDER}.{name}"
    # one that extends it has other code: a habit is refused instead of undoing that
    given = config(f"{FOLDER}.own_settings:Heir")
    assert implementation(load(given).backbones["own"]).__name__ == "HeirBackbone"
    given["backbones"]["own"]["late"] = True
    with pytest.raises(
        ConfigError, match=r"backbones\.own: late: True is a published habit that kinds_of_a_test\.heir"
    ):
        load(given)


OTHERS = """
from tessera.settings.losses.base import LossSettings
from tessera.settings.sources.base import FileSource
class Margin(LossSettings):
    IMPLEMENTATION = "kinds_of_a_test.own:OwnBackbone"
    margin: float = 1.0
class Lines(FileSource):
    IMPLEMENTATION = "kinds_of_a_test.own"
    FILES = ("stop",)
    path: str
    stop: str | None = None
"""


def test_the_files_of_an_own_source_are_looked_for_and_read(folder: Path) -> None:
    """Those that it names beside `path` as well; its code need not have a `check`."""
    (folder / "others.py").write_text(OTHERS)
    given = config("sasrec")
    given["datasets"]["shop"] = {"source": f"{FOLDER}.others:Lines", "path": "log.txt", "stop": "stop.txt"}
    (folder.parent / "log.txt").write_text("u i")
    with pytest.raises(ConfigError, match=r"datasets\.shop\.stop: .*stop\.txt: no such file"):
        check_files(Plan(load(given)))
    (folder.parent / "stop.txt").write_text("u")
    plan = Plan(load(given))
    check_files(plan)
    check_first_lines(plan)
    assert [file.name for file in dataset_files(plan.config, "shop")] == ["log.txt", "stop.txt"]


def test_losses_and_sources_too(folder: Path) -> None:
    (folder / "others.py").write_text(OTHERS)
    given = config(f"{FOLDER}.own_settings:Own")
    given["loss"] = {"kind": f"{FOLDER}.others:Margin", "margin": 0.5}
    given["datasets"]["shop"] = {"source": f"{FOLDER}.others:Lines", "path": "log.txt"}
    plan = Plan(load(given))
    jobs = Jobs(plan)
    assert {f"{FOLDER}.others", f"{FOLDER}.own"} <= set(jobs.modules(plan.nouns[0]))
    assert jobs.source_modules("shop") == [f"{FOLDER}.others", f"{FOLDER}.own"]
    assert '"path": "log.txt"' in jobs.ingest("shop")
    given["loss"]["margn"] = 1
    with pytest.raises(ConfigError, match=r"loss\.margn: unknown key 'margn'.*did you mean 'margin'"):
        load(given)


@pytest.mark.parametrize(
    ("tag", "told"),
    [
        (f"{FOLDER}.own_settings:Onw", f"module '{FOLDER}.own_settings' has no 'Onw'; did you mean 'Own'?"),
        (f"{FOLDER}.own_setting:Own", f"there is no module '{FOLDER}.own_setting' in "),
        (f"{FOLDER}.own_settings:Bare", f"'{FOLDER}.own_settings:Bare' does not say where its code is"),
        (f"{FOLDER}.own_settings:Lost", f"there is no module '{FOLDER}.onw' in "),
        (f"{FOLDER}.own_settings:Half", f"there is no module '{FOLDER}.own_publishd' in "),
        (f"{FOLDER}.broken:Own", "cannot be loaded: ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        (f"{FOLDER}.wrong:Half", "cannot be loaded: SyntaxError"),
        (
            f"{FOLDER}.own:OwnBackbone",
            "is no BackboneSettings: a kind extends tessera.settings.backbones.base.",
        ),
        ("json.decoder:JSONDecoder", "is no BackboneSettings"),
        (":", "':' is no package.module:Class"),
        ("..up:Own", "'..up:Own' is no package.module:Class"),
    ],
)
def test_it_is_refused_in_one_line(folder: Path, tag: str, told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(config(tag))
    text = str(refused.value)
    assert text.startswith("config: backbones.own.kind: ")
    assert told in text
    assert len(text.splitlines()) == 1


def test_code_that_no_fingerprint_covers_is_refused(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="which is not in"):
        load(config(f"{FOLDER}.own_settings:Own"))


READERS = """
from tessera.settings.backbones.base import BackboneSettings
from tessera.settings.items.base import ItemSettings
from tessera.settings.language import ReadText
from tessera.settings.losses.base import LossSettings
from tessera.settings.recipes.base import RecipeSettings
from tessera.settings.sources.base import FileSource
from tessera.settings.systems.base import SystemSettings
class Seeded(ItemSettings):
    IMPLEMENTATION = "kinds_of_a_test.own:OwnBackbone"
    path: str
class Deep(BackboneSettings):
    IMPLEMENTATION = "kinds_of_a_test.own:OwnBackbone"
    FILES = ("words", "parts")
    words: str
    parts: list[str] = []
    max_length: int = 20
    dim: int = 8
class Counts(SystemSettings):
    IMPLEMENTATION = "kinds_of_a_test.own:OwnBackbone"
    recommender: str
    path: str
class Table(RecipeSettings):
    IMPLEMENTATION = "kinds_of_a_test.own:OwnBackbone"
    FILES = ("words",)
    recipe: str
    path: str
    words: str
class Lists(FileSource):
    IMPLEMENTATION = "kinds_of_a_test.own"
    FILES = ("extras",)
    extras: list[str]
class Unfinished(ReadText, RecipeSettings):
    IMPLEMENTATION = "kinds_of_a_test.own:OwnBackbone"
    recipe: str
class Astray(LossSettings):
    IMPLEMENTATION = "kinds_of_a_test.own:OwnBackbone"
    FILES = ("wrods",)
    words: str = ""
"""


def reading() -> Any:
    """A config whose kinds of every family name files: `a` to `h`."""
    return {
        "datasets": {"shop": {"source": f"{FOLDER}.readers:Lists", "path": "log.txt", "extras": ["a", "b"]}},
        "tables": {"told": {"recipe": f"{FOLDER}.readers:Table", "path": "c", "words": "d"}},
        "backbones": {"deep": {"kind": f"{FOLDER}.readers:Deep", "words": "e", "parts": ["f"]}},
        "systems": {
            "seeded": {"items": {"kind": f"{FOLDER}.readers:Seeded", "path": "g"}},
            "counts": {"recommender": f"{FOLDER}.readers:Counts", "path": "h"},
            "read": {"items": {"table": "told"}},
        },
        "experiment": {
            "datasets": ["shop"], "systems": ["seeded", "counts", "read"], "backbones": ["deep"], "seeds": [1, 2],
        },
    }  # fmt: skip


KEYS = {
    "a": "datasets.shop.extras.0", "b": "datasets.shop.extras.1", "c": "tables.told.path", "d": "tables.told.words",
    "e": "backbones.deep.words", "f": "backbones.deep.parts", "g": "systems.seeded.items.path",
    "h": "systems.counts.path",
}  # fmt: skip


def test_files_of_every_kind_are_looked_for_and_read(folder: Path) -> None:
    (folder / "readers.py").write_text(READERS)
    (folder.parent / "log.txt").write_text("u i")
    for name in KEYS:
        (folder.parent / name).write_text(name)
    plan = Plan(load(reading()))
    check_files(plan)
    jobs = Jobs(plan)

    def read(kind: str, name: str) -> set[str]:
        inputs = jobs.inputs(Noun(kind, name), "shop")
        named = inputs.values()
        files = [file for value in named for file in ([value] if isinstance(value, str) else value)]
        return {Path(file).name for file in files if Path(file).name in KEYS}

    assert {file.name for file in dataset_files(plan.config, "shop")} == {"log.txt", "a", "b"}
    assert read("table", "told") == {"c", "d"}
    assert read("run", "seeded/deep/seed-1") == {"e", "f", "g"}
    assert read("run", "counts/Counts/seed-0") == {"h"}
    assert jobs.inputs(Noun("table", "told"), "shop")["source"] == "c"  # where its function looks for it
    # what judges a run reads the run
    assert "files" not in jobs.inputs(Noun("run", "seeded/deep/seed-1"), "shop", judged=True)
    assert "source" not in jobs.inputs(Noun("run", "seeded/deep/seed-1"), "shop")  # of the system alone
    # another size is another job
    noun = Noun("run", "seeded/deep/seed-1")
    before = repr(jobs.settings(noun, "shop"))
    (folder.parent / "g").write_text("longer")
    assert repr(jobs.settings(noun, "shop")) != before


@pytest.mark.parametrize("name", KEYS)
def test_a_missing_file_of_any_kind_is_told_once_by_its_key(name: str, folder: Path) -> None:
    (folder / "readers.py").write_text(READERS)
    (folder.parent / "log.txt").write_text("u i")
    for other in KEYS.keys() - {name}:
        (folder.parent / other).write_text(other)
    with pytest.raises(ConfigError) as refused:
        check_files(Plan(load(reading())))
    (line,) = str(refused.value).splitlines()
    assert line.startswith(f"config: {KEYS[name]}: {name}: no such file")


def test_a_key_of_files_that_is_none_is_told(folder: Path) -> None:
    (folder / "readers.py").write_text(READERS)
    given = config(f"{FOLDER}.own_settings:Own") | {"loss": {"kind": f"{FOLDER}.readers:Astray"}}
    with pytest.raises(
        ConfigError, match=r"Astray' names 'wrods' in FILES, which is no key of it; did you mean 'words'"
    ):
        load(given)


def test_a_recipe_that_reads_states_says_how_they_are_finished(folder: Path) -> None:
    (folder / "readers.py").write_text(READERS)
    given = config("sasrec") | {"tables": {"told": {"recipe": f"{FOLDER}.readers:Unfinished", "model": "small"}}}
    with pytest.raises(
        ConfigError, match=r"tables\.told\.recipe: .*Unfinished' reads the states of a model, .*Finish, too"
    ):
        load(given)


def test_an_ensemble_names_the_files_of_no_member(folder: Path) -> None:
    (folder / "readers.py").write_text(READERS)
    (folder.parent / "log.txt").write_text("u i")
    given = reading()
    given["systems"]["both"] = {"recommender": "ensemble", "members": ["seeded", "read"]}
    given["experiment"]["systems"].append("both")
    for other in KEYS.keys() - {"g"}:
        (folder.parent / other).write_text(other)
    with pytest.raises(ConfigError) as refused:
        check_files(Plan(load(given)))
    (line,) = str(refused.value).splitlines()
    assert "systems.seeded.items.path: g: no such file" in line
    (folder.parent / "g").write_text("g")
    plan = Plan(load(given))
    check_files(plan)
    assert "files" not in Jobs(plan).inputs(Noun("run", "both/ensemble/seed-1"), "shop")


def test_a_folder_that_a_kind_reads_is_its_files(folder: Path) -> None:
    (folder / "readers.py").write_text(READERS)
    (folder.parent / "log.txt").write_text("u i")
    for name in KEYS.keys() - {"g"}:
        (folder.parent / name).write_text(name)
    (folder.parent / "g/inner").mkdir(parents=True)
    for name in ("g/one.npy", "g/inner/two.bin", "g/.hidden"):
        (folder.parent / name).write_text("")
    plan = Plan(load(reading()))
    check_files(plan)
    read = Jobs(plan).inputs(Noun("run", "seeded/deep/seed-1"), "shop")["files"]
    assert {"g/one.npy", "g/inner/two.bin"} == {file for file in read if file.startswith("g/")}


GIVEN = """
from tessera.settings.systems.given import GivenSystem
class Mine(GivenSystem):
    IMPLEMENTATION = "kinds_of_a_test.own:OwnBackbone"
    FILES = ("extra",)
    extra: str
"""


def test_an_own_given_system_has_a_file_a_seed_and_others_beside_it(folder: Path) -> None:
    (folder / "given_more.py").write_text(GIVEN)
    for name in ("s1.csv", "s2.csv", "x.txt"):
        (folder.parent / name).write_text(name)
    given = config("sasrec")
    mine = {"recommender": f"{FOLDER}.given_more:Mine", "path": "s{seed}.csv", "seeds": [1, 2], "extra": "x.txt"}
    given |= {"systems": {"mine": mine}}
    given["experiment"] |= {"systems": ["mine"], "seeds": [1, 2]}
    plan = Plan(load(given))
    check_files(plan)
    inputs = Jobs(plan).inputs(Noun("run", "mine/Mine/seed-2"), "shop")
    assert (inputs["source"], inputs["files"]) == (["s2.csv"], ["x.txt"])


SYSTEMS = """
from tessera.settings.recipes.base import RecipeSettings
from tessera.settings.systems.base import SystemSettings
class Lists(SystemSettings):
    IMPLEMENTATION = "kinds_of_a_test.own:OwnBackbone"
    recommender: str
    path: str | list[str]
class Words(RecipeSettings):
    IMPLEMENTATION = "kinds_of_a_test.own:OwnBackbone"
    FILES = ("words",)
    recipe: str
    path: str
    words: str
"""


def test_an_own_system_reads_a_list_of_files_or_a_folder(folder: Path) -> None:
    (folder / "lists.py").write_text(SYSTEMS)
    given = config("sasrec")
    given["experiment"]["systems"] = ["mine"]
    given["systems"] = {"mine": {"recommender": f"{FOLDER}.lists:Lists", "path": ["a.txt", "b.txt"]}}
    (folder.parent / "a.txt").write_text("a")
    with pytest.raises(ConfigError, match=r"systems\.mine\.path: b\.txt: no such file"):
        check_files(Plan(load(given)))
    (folder.parent / "b.txt").write_text("b")
    check_files(Plan(load(given)))
    noun = Noun("run", "mine/Lists/seed-0")
    assert Jobs(Plan(load(given))).inputs(noun, "shop") == {"files": ["a.txt", "b.txt"]}
    (folder.parent / "f").mkdir()
    (folder.parent / "f/x.npy").write_text("")
    given["systems"]["mine"]["path"] = "f"
    check_files(Plan(load(given)))
    assert Jobs(Plan(load(given))).inputs(noun, "shop") == {"source": ["f/x.npy"]}


def test_a_file_whose_name_is_part_of_another_is_read(folder: Path) -> None:
    (folder / "lists.py").write_text(SYSTEMS)
    for name in ("words.bin", "words"):
        (folder.parent / name).write_text(name)
    given = config("sasrec")
    given["tables"] = {"told": {"recipe": f"{FOLDER}.lists:Words", "path": "words.bin", "words": "words"}}
    given["systems"] = {"read": {"items": {"table": "told"}}}
    given["experiment"]["systems"] = ["read"]
    inputs = Jobs(Plan(load(given))).inputs(Noun("table", "told"), "shop")
    assert (inputs["source"], inputs["files"]) == ("words.bin", ["words"])


def test_a_class_that_has_a_new_name_stays_what_it_is_elsewhere(folder: Path) -> None:
    """It may be the type of another key, whose schema knows the name of its base."""
    (folder / "used.py").write_text(
        "from pydantic import Field\nfrom tessera.settings.base import Settings\n"
        "from tessera.settings.backbones.sasrec import SASRecSettings\n"
        "class Mine(SASRecSettings):\n    IMPLEMENTATION = 'kinds_of_a_test.own:OwnBackbone'\n"
        "class Wrap(Settings):\n    inner: Mine = Field(default_factory=lambda: Mine(kind='sasrec'))\n"
    )
    tag = f"{FOLDER}.used:Mine"
    made = settings_class("backbones", tag).model_validate({"kind": tag})
    assert made.modules() == [f"{FOLDER}.used", f"{FOLDER}.own"]
    wrap = sys.modules[f"{FOLDER}.used"].Wrap
    assert wrap.model_validate(wrap().model_dump()) == wrap()


def test_a_folder_of_another_form_is_told_before_anything_runs(folder: Path) -> None:
    (folder / "others.py").write_text(OTHERS)
    (folder.parent / "logs").mkdir()
    (folder.parent / "logs/one.xlog").write_text("u i")
    given = config("sasrec")
    given["datasets"]["shop"] = {"source": f"{FOLDER}.others:Lines", "path": "logs"}
    with pytest.raises(ConfigError, match=r"datasets\.shop\.path: .*without part-.* a function files\(settings\) in"):
        check_first_lines(Plan(load(given)))
    del sys.modules[f"{FOLDER}.own"]
    (folder / "own.py").write_text(
        "from pathlib import Path\ndef files(settings):\n    return sorted(Path(settings.path).glob('*.xlog'))\n"
    )
    check_first_lines(Plan(load(given)))
