"""A run in a folder to hand on: everything in it is read again as a stranger would, and compared with the run."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
import tiny_mme_sid
import torch
import yaml
from huggingface_hub import ModelCard
from pattern import ITEMS, make_run, write_dataset
from safetensors.numpy import load_file
from test_load import SYSTEMS, WITHOUT_CODES, write_inputs
from torch import nn

import tessera
from tessera.artifacts.codes import read_codes
from tessera.artifacts.files import read_json
from tessera.artifacts.models import write_model
from tessera.data import hub
from tessera.evaluation.histories import Histories
from tessera.recommenders.evaluate import evaluate_run
from tessera.recommenders.systems.base import Catalogue, VectorRecommender
from tessera.recommenders.train import train_run
from tessera.serving.folder import run_files
from tessera.serving.tower import TowerError, run_tower, write_tower
from tessera.settings.evaluation import Evaluation

RUNS: dict[str, tuple[str, str]] = {
    "sasrec": ("ids", "sasrec"),
    "gru4rec": ("ids", "gru4rec"),
    "bert4rec": ("ids", "bert4rec"),
    "filter": ("ids", "filter"),
    "hstu": ("ids", "hstu"),
    "cosine": ("cosine", "sasrec"),
    "codes": ("codes", "gru4rec"),
    "dual_view": ("dual_view", "bert4rec"),
    "fused": ("fused", "sasrec"),
    "pad": ("pad", "sasrec"),
    "pad_gru4rec": ("pad", "gru4rec"),
    "findrec": ("findrec", "sasrec"),
    "eimf": ("eimf", "eimf"),
    "tpad": ("tpad", "sasrec"),
    "i3_mrec_graph": ("i3_mrec_graph", "i3_mrec_graph"),
    "cider": ("cider", "sasrec"),
    "markov_mixture": ("markov_mixture", "gru4rec"),
    "tiger": ("tiger", "tiger"),
    "markov": ("markov", "markov"),
    "mme_sid": ("mme_sid", "mme_sid"),
}
FUSED = {"kind": "dual_view", "text": "t", "fine": "f", "width": 8, "adapter": [8], "axis": "sequence"}
COSINE = {"items": "ids", "scores": "cosine", "learn_temperature": True}
TOWERS = [name for name in RUNS if name not in ("markov_mixture", "tiger", "markov", "mme_sid", "i3_mrec_graph")]
BACKBONES = ("sasrec", "gru4rec", "bert4rec", "filter", "hstu")
GRAPH = {"recommender": "i3_mrec_graph", "text": "t", "dim": 8, "layers": 1}
OWN = {"fused": {"items": FUSED}, "cosine": COSINE, "i3_mrec_graph": GRAPH}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`results/x` as the workflow leaves it, every run trained for an epoch."""
    root = tmp_path_factory.mktemp("world") / "results/x"
    write_dataset(root / "data")
    write_inputs(root)
    for name, (system, recommender) in RUNS.items():
        if system == "mme_sid":
            run = tiny_mme_sid.make_run({"epochs": 1})
        else:
            settings = {**SYSTEMS, **OWN}[system]
            run = make_run(recommender if recommender in BACKBONES else "sasrec", system=settings, epochs=1)
        folder = root / "runs" / name / run.recommender / "seed-1"
        folder.mkdir(parents=True)
        write_model(folder / "model.safetensors", {"x": torch.zeros(1)}, {"run": run.model_dump(mode="json")})
        inputs = run_files(folder).inputs
        train_run(run, root / "data", inputs, folder / "model.safetensors", root.parent / "state")
        if name in ("sasrec", "markov"):
            evaluate_run(
                run, Evaluation(), folder / "model.safetensors", root / "data", inputs, None,
                folder / "evaluation.parquet", folder / "metrics.json",
            )  # fmt: skip
    return root


@pytest.fixture(scope="module")
def exported(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Every run, and the folder that it was exported to."""
    made: dict[str, tuple[Any, Path]] = {}

    def of(name: str) -> tuple[Any, Path]:
        if name not in made:
            run = load(results, name)
            made[name] = run, run.export(tmp_path_factory.mktemp("out") / name, licence="mit")
        return made[name]

    return of


def load(results: Path, name: str) -> Any:
    (folder,) = (results / "runs" / name).glob("*/seed-1")
    return tessera.load(folder, device="cpu")


def random_histories(longest: int) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    found = []
    for rows, length in ((1, 1), (1, longest), (5, 3), (9, longest), (2, 1)):
        items = rng.integers(1, ITEMS + 1, (rows, length))
        items[np.arange(length) >= rng.integers(1, length + 1, (rows, 1))] = 0
        found.append(items)
    return found


@pytest.mark.parametrize("name", RUNS)
def test_the_folder_is_the_run_itself(name: str, exported: Any) -> None:
    run, folder = exported(name)
    again = tessera.load(folder, device="cpu")
    history = run.catalogue.raw_ids[3:6]
    theirs, ours = again.recommend(history, k=9), run.recommend(history, k=9)
    assert theirs.item.tolist() == ours.item.tolist()
    np.testing.assert_array_equal(theirs.score, ours.score)
    ids = read_json(folder / "item_ids.json")
    assert ids == [None, *run.catalogue.raw_ids[1:]]
    assert [run.catalogue.numbers[raw] for raw in ids[1:]] == list(range(1, ITEMS + 1))


@pytest.mark.parametrize("name", TOWERS)
def test_the_user_tower_is_that_of_the_system(name: str, exported: Any) -> None:
    run, folder = exported(name)
    model = run.scorer.model
    for items in random_histories(model.max_history):
        # by the module itself, not by the wrapper that was exported
        with torch.no_grad():
            users = model.users(Histories.of(items), model.catalogue()).numpy()
        wanted = users[:, 0] if users.shape[1] == 1 else users
        found = run_tower(folder / "user_tower.onnx", items)
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, atol=2e-5)
    told = read_json(folder / "export.json")
    assert told["onnx"]["difference"] < 1e-5
    assert told["max_history"] == model.max_history
    assert b"site-packages" not in (folder / "user_tower.onnx").read_bytes(), "folders of this machine are told"


@pytest.mark.parametrize("name", ["sasrec", "bert4rec", "fused", "pad", "cosine"])
def test_ids_tower_and_index_recommend_without_tessera(name: str, exported: Any) -> None:
    run, folder = exported(name)
    history = [run.catalogue.raw_ids[item] for item in (4, 5, 6)]
    ids = json.loads((folder / "item_ids.json").read_text())
    dense = {raw: number for number, raw in enumerate(ids)}
    user = run_tower(folder / "user_tower.onnx", np.array([[dense[raw] for raw in history]]))
    scores, found = faiss.read_index(str(folder / "index.faiss")).search(user, ITEMS)
    wanted = run.recommend(history, k=ITEMS, seen=True)
    assert {ids[item] for item in found[0]} == set(wanted.item)
    np.testing.assert_allclose(scores[0], wanted.score, rtol=1e-4, atol=1e-4)
    vectors = load_file(folder / "item_vectors.safetensors")["vectors"]
    np.testing.assert_allclose(user @ vectors[found[0]].T, scores, rtol=1e-4, atol=1e-4)


def test_the_words_of_the_card_about_use_run(exported: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    run, folder = exported("sasrec")
    text = (folder / "README.md").read_text()
    with_tessera, without = (block.split("```")[0] for block in text.split("```python\n")[1:])
    monkeypatch.chdir(folder)
    raw = run.catalogue.raw_ids[4:6]
    asked = f'["{raw[0]}", "{raw[1]}"]'
    exec(without.replace('["ITEM", "ITEM"]', asked), {})
    assert str(run.recommend(raw, k=10, seen=True).item.tolist()) in capsys.readouterr().out
    exec(with_tessera.replace('"FOLDER"', '"."').replace('["ITEM", "ITEM"]', asked), {})


def test_semantic_ids_lead_back_to_items(exported: Any) -> None:
    for name in ("codes", "tiger"):
        run, folder = exported(name)
        (part,) = read_json(folder / "semantic_ids.json")
        codes = read_codes(folder / "semantic_ids/c/codes.parquet", ITEMS).codes
        back = {raw: text for text, raws in part["items"].items() for raw in raws}
        assert len(back) == ITEMS - 1
        assert run.catalogue.raw_ids[WITHOUT_CODES] not in back
        assert part["sizes"] == [6, 6]
        for item in (1, 8, ITEMS):
            assert back[run.catalogue.raw_ids[item]].split() == [str(code) for code in codes[item]]
    assert not (exported("sasrec")[1] / "semantic_ids.json").exists()


@pytest.mark.parametrize("name", RUNS)
def test_the_card_parses_and_is_true(name: str, exported: Any, results: Path) -> None:
    run, folder = exported(name)
    card = ModelCard.load(folder / "README.md")
    assert card.data.license == "mit"
    assert card.data.library_name == "tessera"
    config = yaml.safe_load(card.text.split("```yaml\n")[1].split("```")[0])
    assert config == run.run.model_dump(mode="json")
    for path in folder.iterdir():
        shown = f"`{path.name}/`" if path.is_dir() else f"`{path.name}`"
        assert shown in card.text or path.name == "README.md"
    if name in ("sasrec", "markov"):
        (judged,) = (results / "runs" / name).glob("*/seed-1/metrics.json")
        metrics = read_json(judged)["metrics"]
        assert {r.metric_type: r.metric_value for r in card.data.eval_results} == pytest.approx(metrics, abs=1e-6)
        assert f"| NDCG@10 | {metrics['NDCG@10']:.4f} |" in card.text
    else:
        assert card.data.eval_results is None
        assert "was not judged" in card.text


def test_a_card_says_where_times_were_read_that_nobody_is_asked_for(exported: Any) -> None:
    for name in ("hstu", "sasrec"):
        _, folder = exported(name)
        assert read_json(folder / "export.json")["judged_with_times"] == (name == "hstu")
        assert ("measured with the times of histories" in (folder / "README.md").read_text()) == (name == "hstu")


def test_what_a_system_does_not_have_is_said(exported: Any) -> None:
    for name, absent, present in (
        ("tiger", ["item vectors", "index", "user tower"], ["semantic_ids.json"]),
        ("markov", ["item vectors", "index", "user tower", "semantic IDs"], []),
        ("mme_sid", ["user tower"], ["index.faiss", "item_vectors.safetensors", "semantic_ids.json"]),
        ("sasrec", ["semantic IDs"], ["index.faiss", "user_tower.onnx"]),
    ):
        _, folder = exported(name)
        told = read_json(folder / "export.json")["absent"]
        assert set(told) == set(absent)
        text = (folder / "README.md").read_text()
        assert all(f"- No {what}: {why}." in text for what, why in told.items())
        assert all((folder / file).exists() for file in present)
        assert (folder / "user_tower.onnx").exists() == ("user tower" not in absent)


def test_a_saved_run_is_exported_too(results: Path, tmp_path: Path) -> None:
    kept = load(results, "gru4rec").save(tmp_path / "kept")
    folder = tessera.load(kept, device="cpu").export(tmp_path / "out", onnx=False)
    told = read_json(folder / "export.json")
    assert told["index"]["measured_on"] == f"{ITEMS} histories of one item"
    assert told["index"]["recall"] == {"recall@10": 1.0}
    assert told["absent"]["user tower"] == "it was not asked for"
    card = ModelCard.load(folder / "README.md")
    assert card.data.license is None
    assert "None was given" in card.text


def test_metrics_of_a_final_run_are_those_of_the_validated_one(results: Path, tmp_path: Path) -> None:
    import shutil

    final = tmp_path / "results/x-final"
    shutil.copytree(results, tmp_path / "results/x")
    shutil.copytree(results, final)
    for path in (final / "runs").rglob("metrics.json"):
        path.unlink()
    run = tessera.load(final / "runs/sasrec/sasrec/seed-1", device="cpu")
    run._files.run.__dict__["system"] = "sasrec"  # its folder, which this test names otherwise than the settings do
    text = (run.export(tmp_path / "out", onnx=False) / "README.md").read_text()
    assert "did not train on its validation and test targets" in text


# ---------------------------------------------------------------- what goes wrong


def test_a_folder_that_holds_something_is_left_alone(results: Path, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is there already; name a new folder"):
        load(results, "sasrec").export(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]
    (tmp_path / "empty").mkdir()
    load(results, "markov").export(tmp_path / "empty")
    assert (tmp_path / "empty/README.md").is_file()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"index": "hsnw"}, "export: index"),
        ({"index": "ivf_pq"}, "at least 9,984 items, the catalogue has 30"),
        ({"push": "winner"}, r"expected OWNER/NAME of a repository \(got 'winner'\)$"),
        ({"push": "../etc/x"}, "expected OWNER/NAME"),
        ({"licence": "mit: {x: y}"}, "expected the name of a licence"),
        ({"push": "me/winner"}, "push: no token of the Hugging Face Hub"),
    ],
    ids=str,
)
def test_a_wrong_setting_is_told_and_nothing_written(
    given: dict[str, Any], told: str, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(ValueError, match=told):
        load(results, "sasrec").export(tmp_path / "out", **given)
    assert not list(tmp_path.iterdir())


def test_without_onnx_it_is_told_before_anything_is_written(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tessera.settings.export.ONNX_PACKAGES", ("onnx", "no_such_package"))
    with pytest.raises(ValueError, match=r"onnx: no_such_package cannot be imported; pip install -e '.\[onnx\]'"):
        load(results, "sasrec").export(tmp_path / "out")
    assert not list(tmp_path.iterdir())
    load(results, "markov").export(tmp_path / "markov")  # has no tower


def test_a_failure_in_the_middle_leaves_nothing(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "no space")

    monkeypatch.setattr("tessera.serving.export.write_text", full)
    with pytest.raises(OSError, match="no space"):
        load(results, "gru4rec").export(tmp_path / "out", onnx=False)
    assert not list(tmp_path.iterdir())


def test_nothing_is_sent_unless_asked(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a token at hand and every socket shut."""
    tried: list[Any] = []

    def connect(self: socket.socket, address: Any) -> None:
        tried.append(address)
        raise OSError("no network in this test")

    monkeypatch.setenv("HF_TOKEN", "hf_nothing")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # tests of language models set it for all
    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: connect(None, a))  # type: ignore[arg-type]
    run = load(results, "sasrec")
    run.export(tmp_path / "kept")
    assert tried == []
    with pytest.raises(ValueError, match=r"push: me/winner: .*the folder itself is finished"):
        run.export(tmp_path / "sent", onnx=False, push="me/winner")
    assert tried, "asked for, it tries"
    assert (tmp_path / "sent/README.md").is_file()


def test_what_is_pushed_is_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, Any]] = []
    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", lambda self, name, **how: calls.append((name, how)))
    monkeypatch.setattr("huggingface_hub.HfApi.upload_folder", lambda self, **how: calls.append(("upload", how)))
    hub.push_folder(tmp_path, "me/winner")
    assert calls[0] == ("me/winner", {"private": True, "exist_ok": True})
    assert calls[1][1]["folder_path"] == str(tmp_path)


class Stubborn(VectorRecommender):
    """A system whose vectors go by a number that a graph does not see change."""

    max_history = 5

    def __init__(self, broken: str) -> None:
        super().__init__()
        self.items, self.broken = nn.Parameter(torch.randn(9, 4)), broken

    build = batches = losses = None  # type: ignore[assignment]

    def catalogue(self) -> Catalogue:
        return Catalogue(self.items, self.items)

    def users(self, histories: Any, catalogue: Catalogue) -> torch.Tensor:
        if self.broken == "asks" and int(histories.items.sum()) > 3:
            return torch.zeros(len(histories.items), 1, 4)
        mean = catalogue.read[histories.items].sum(1) / histories.lengths[:, None]
        return (mean * len(histories.items) if self.broken == "len" else mean)[:, None]


@pytest.mark.parametrize("longest", [1, 2])
def test_a_tower_of_a_system_that_reads_one_or_two_items(longest: int, tmp_path: Path) -> None:
    model, path = Stubborn("").eval(), tmp_path / "t.onnx"
    model.max_history = longest
    with torch.no_grad():
        assert write_tower(model, model.catalogue(), path) < 1e-6
        items = np.arange(1, 4)[:, None]
        np.testing.assert_allclose(run_tower(path, items)[:, None], model.items[items].numpy(), rtol=1e-6)


@pytest.mark.parametrize("broken", ["len", "asks", ""])
def test_a_tower_that_is_not_the_system_is_not_written(broken: str, tmp_path: Path) -> None:
    model, path = Stubborn(broken).eval(), tmp_path / "t.onnx"
    with torch.no_grad():
        if not broken:
            assert write_tower(model, model.catalogue(), path) < 1e-6
            return
        with pytest.raises(TowerError, match="ONNX graph"):
            write_tower(model, model.catalogue(), path)
    assert not path.exists()
