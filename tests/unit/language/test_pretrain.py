"""Pre-training of the built model: what it may see, the same bytes after a kill, and that it learns."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tessera.artifacts.files import read_json
from tessera.data import catalogue_pictures
from tessera.data.bazaar.attributes import IMAGE, VALUES
from tessera.language import pretrain as pretrain_module
from tessera.language.drawn import caption, draw, read_caption
from tessera.language.models import LanguageModelError, load_model
from tessera.language.pretrain import TASKS, Shown, Teacher, pretrain, short_attributes, summary
from tessera.language.questions import read_pixels
from tessera.settings.language import BuiltModel, ItemPrompt
from tessera.training.machine import Machine

PROMPT = ItemPrompt(domain="lamp")


@pytest.fixture(autouse=True)
def few_drawings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrain_module, "DRAWINGS", 24)
    monkeypatch.setattr(pretrain_module, "CHECKED", 8)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "training.json"}


@pytest.mark.parametrize("source", ["bazaar", "movielens"])
def test_the_same_seed_gives_the_same_folder_and_both_teachers_teach(
    tiny: BuiltModel, catalogue: Callable[..., Path], tmp_path: Path, source: str
) -> None:
    data = catalogue(24)
    for name in ("one", "two"):
        pretrain(tiny, PROMPT, source, data, tmp_path / name, tmp_path / f"state-{name}", Machine(tiny.training))
    assert files(tmp_path / "one") == files(tmp_path / "two")
    told = read_json(tmp_path / "one" / "training.json")
    assert told["teacher"] == ("drawn" if source == "bazaar" else "own")
    assert told["history"][-1]["loss"] < told["history"][0]["loss"]
    assert 0 <= told["checked"]["exact"] <= 1
    assert 0 <= told["checked"]["texts_exact"] <= 1
    assert told["bits"]["after"] < told["bits"]["before"]
    assert load_model(tiny, tmp_path / "one").kind == "vision"


_PROGRAM = """
import sys, json, torch
from pathlib import Path
torch.set_num_threads(1)
from tessera.artifacts.logs import stage
from tessera.language import pretrain as module
from tessera.settings.language import BuiltModel, ItemPrompt
from tessera.training.machine import Machine
module.DRAWINGS, module.CHECKED = 24, 8
settings = BuiltModel.model_validate_json(sys.argv[1])
data, output, state = map(Path, sys.argv[2:])
with stage(None):
    module.pretrain(settings, ItemPrompt(domain="lamp"), "bazaar", data, output, state, Machine(settings.training))
"""


def test_a_killed_run_ends_with_the_same_bytes(
    tiny: BuiltModel, catalogue: Callable[..., Path], tmp_path: Path
) -> None:
    data = catalogue(6)
    longer = tiny.model_copy(update={"training": tiny.training.model_copy(update={"steps": 24})})
    pretrain(longer, PROMPT, "bazaar", data, tmp_path / "whole", tmp_path / "state-1", Machine(tiny.training))
    state = tmp_path / "state-2"
    told = [sys.executable, "-c", _PROGRAM, longer.model_dump_json(), str(data), str(tmp_path / "killed"), str(state)]
    process = subprocess.Popen(told, stderr=subprocess.DEVNULL, env=os.environ)
    while not (state / "checkpoint.safetensors").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (state / "checkpoint.safetensors").exists(), "it ended before it was killed"
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    pretrain(longer, PROMPT, "bazaar", data, tmp_path / "killed", state, Machine(tiny.training))
    assert files(tmp_path / "whole") == files(tmp_path / "killed")
    assert not (state / "checkpoint.safetensors").exists()


def test_only_items_with_training_interactions_are_read(
    tiny: BuiltModel, catalogue: Callable[..., Path], tmp_path: Path
) -> None:
    """The last item of the catalogue is a target alone: no word, no picture of it."""
    data = catalogue(6, texts=["Oak"] * 5 + ["Forbidden"])
    for drawn in (True, False):
        teacher = Teacher(tiny, PROMPT, drawn, data)
        assert teacher.described == [1, 2, 3, 4, 5]
        assert not any("Forbidden" in text for text in teacher.texts())
    assert sorted(teacher.of_item) == [1, 2, 3, 4, 5]
    assert teacher.paired == [item for item in range(1, 6) if teacher.of_item[item] in teacher.trained]
    assert teacher.paired is teacher.paired  # made once, and not for every example
    (tmp_path / "pictures" / "2.png").write_bytes(b"broken")
    assert sorted(Teacher(tiny, PROMPT, False, data).of_item) == [1, 3, 4, 5]


def test_a_folder_of_pictures_that_is_gone_is_told(
    tiny: BuiltModel, catalogue: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It would learn from texts alone, though its captions are to be of pictures."""
    data = catalogue(6)
    for item in range(1, 6):
        (tmp_path / "pictures" / f"{item}.png").write_bytes(b"broken")
    Teacher(tiny, PROMPT, False, data)
    assert "5 of 5 pictures cannot be read" in caplog.text
    assert caplog.text.count(".png") == 3
    shutil.rmtree(tmp_path / "pictures")
    with pytest.raises(LanguageModelError, match=r"pictures: no such folder; .*items.parquet expects"):
        Teacher(tiny, PROMPT, False, data)
    Teacher(tiny, PROMPT, True, data)


def test_the_drawn_teacher_never_opens_the_catalogues_pictures(
    tiny: BuiltModel, catalogue: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(path: Path, side: int | None = None) -> None:
        raise AssertionError(f"opened {path}")

    monkeypatch.setattr(catalogue_pictures, "open_picture", opened)
    data = catalogue(4)
    assert Teacher(tiny, PROMPT, True, data).tasks.count("image") == 3
    with pytest.raises(AssertionError, match="opened"):
        Teacher(tiny, PROMPT, False, data)


def test_without_pictures_or_texts_the_other_is_learned_from(tiny: BuiltModel, catalogue: Callable[..., Path]) -> None:
    assert set(Teacher(tiny, PROMPT, False, catalogue(4, images=[None] * 4)).tasks) == {"continue", "text"}
    assert set(Teacher(tiny, PROMPT, False, catalogue(4, texts=[None] * 4)).tasks) == {"image"}
    with pytest.raises(LanguageModelError, match="no item with training interactions has a text or a picture"):
        Teacher(tiny, PROMPT, False, catalogue(4, [None] * 4, [None] * 4))


def test_kept_pixels_are_those_that_the_processor_makes(built: Path, tiny: BuiltModel) -> None:
    model = load_model(tiny, built)
    pictures = [drawing.picture for drawing in draw(5, 0, 3)] + [draw(5, 1, 1)[0].picture.resize((90, 45))]
    shown = Shown(model.image_processor)
    shown.add(pictures)
    mirrored = read_pixels(model, [picture.transpose(0) for picture in pictures])
    for number, wanted in enumerate(read_pixels(model, pictures)):
        torch.testing.assert_close(shown.pixels(number).patches, wanted.patches, atol=1e-5, rtol=1e-5)
        assert torch.equal(shown.pixels(number).grid, wanted.grid)
        # resampling rounds to whole shades, and not always alike from left and right
        far = (shown.pixels(number, mirrored=True).patches - mirrored[number].patches).abs()
        assert far.max() < 0.05


def test_drawings_are_told_as_they_are_drawn() -> None:
    drawings = draw(1, 0, 50)
    for drawing in drawings:
        read = read_caption(drawing.caption)
        assert read == {name: VALUES[name][value] for name, value in zip(IMAGE, drawing.values, strict=True)}
    assert [d.values for d in draw(1, 0, 50)] == [d.values for d in drawings]
    assert [d.values for d in draw(1, 1, 50)] != [d.values for d in drawings]
    assert np.array_equal(np.asarray(draw(1, 0, 1)[0].picture), np.asarray(draw(1, 0, 1)[0].picture))
    assert read_caption("a star")["colour"] is None
    assert caption(0, 0, 0, 0) == "a mug in red, pattern plain, shape circle"


def test_what_is_said_of_texts() -> None:
    pairs = [("title", "Heat"), ("year", "1995"), ("genre", "crime"), ("description", "A thief and a policeman meet.")]
    assert summary(pairs) == "genre is crime"
    assert summary([("title", "Heat"), ("year", "1995")]) == "Heat"
    assert short_attributes(pairs) == ["crime"]


def test_a_row_of_a_batch_is_the_same_in_one_process_and_in_two(
    tiny: BuiltModel, catalogue: Callable[..., Path]
) -> None:
    teacher = Teacher(tiny, PROMPT, True, catalogue(4))
    from tessera.language.built import make_model, train_tokenizer
    from tessera.language.models import LanguageModel

    tokenizer = train_tokenizer(teacher.texts(), tiny)
    full = make_model(tiny, tokenizer)
    teacher.prepare(
        LanguageModel(full, full.get_decoder(), tokenizer, "vision", 32, 256, teacher.shown.processor, full.device)
    )
    first = [teacher.example(5, row).ids for row in range(8)]
    assert [teacher.example(5, row).ids for row in reversed(range(8))] == first[::-1]
    assert [teacher.example(6, row).ids for row in range(8)] != first
    both = tokenizer.decode(teacher.example(5, TASKS.index("both")).ids)
    assert both.count("lamp") >= 3  # the drawing beside a lamp's text shows a lamp's backdrop
    json.dumps(first)
