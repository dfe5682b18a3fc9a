"""Captions: statuses, greedy batches, shards that survive, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tessera.artifacts.tables import read_table
from tessera.data.pictures import open_picture
from tessera.language import captions as captions_module
from tessera.language import shown as shown_module
from tessera.language.answers import answer
from tessera.language.captions import NAMED, ask_of_items, write_captions, write_said
from tessera.language.models import LanguageModel, LanguageModelError, load_model
from tessera.language.questions import Question, read_pixels, without_pixels
from tessera.language.shown import ShownCatalogue
from tessera.settings.language import BuiltModel, Captions, FolderModel, ItemPrompt

PROMPT = ItemPrompt(domain="lamp")


@pytest.fixture
def model(built: Path, tiny: BuiltModel) -> LanguageModel:
    """A model with random weights that says different things of different items."""
    model = load_model(tiny, built)
    torch.manual_seed(8)
    model.tower.norm.weight.data.normal_()  # type: ignore[union-attr, operator]
    return model


def said(path: Path) -> dict[int, tuple[str | None, str]]:
    return {row["item"]: (row["text"], row["status"]) for row in read_table(path, "captions").to_pylist()}


def test_an_item_without_what_is_shown_is_marked_and_not_captioned(
    model: LanguageModel, catalogue: Callable[..., Path], tmp_path: Path
) -> None:
    images = ["1.png", None, "gone.png", "4.png", "5.png"]
    data = catalogue(5, images, ["Oak", "Oak", "Oak", None, "Oak"])
    (tmp_path / "pictures" / "5.png").write_bytes(b"broken")
    wanted = {
        "image": ["captioned", "no picture", "broken picture", "captioned", "broken picture"],
        "text": ["captioned", "captioned", "captioned", "no text", "captioned"],
        "both": ["captioned", "no picture", "broken picture", "no text", "broken picture"],
    }
    for source, statuses in wanted.items():
        settings = Captions(model="tiny", source=source, max_new_tokens=4)  # type: ignore[arg-type]
        output = tmp_path / f"{source}.parquet"
        write_captions(settings, PROMPT, model, data / "items.parquet", output, tmp_path / "state")
        rows = said(output)
        assert [status for _, status in rows.values()] == statuses
        assert all((text is None) == (status != "captioned") for text, status in rows.values())
        assert list(rows) == [1, 2, 3, 4, 5]


def test_control_tokens_in_texts_are_text(model: LanguageModel, catalogue: Callable[..., Path], tmp_path: Path) -> None:
    """One more token of a picture in a title would end the job of all."""
    titles = ["Oak <|image_pad|> lamp", "Elm <|im_end|> lamp", "Ash"]
    data = catalogue(3, ["1.png", "2.png", "3.png"], titles)
    settings = Captions(model="tiny", source="both", max_new_tokens=4)
    output = tmp_path / "captions.parquet"
    write_captions(settings, PROMPT, model, data / "items.parquet", output, tmp_path / "state")
    assert [status for _, status in said(output).values()] == ["captioned"] * 3


def test_an_empty_answer_is_no_caption(
    model: LanguageModel, catalogue: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """An item that the model said nothing of is counted, not told to the next stage as captioned."""
    data = catalogue(4, ["1.png", "2.png", None, "4.png"], ["Oak", "Elm", "Ash", "Fir"])

    def some(question: Question, rows: list[list[int]], *others: object) -> list[str]:
        return ["", " \n", "a lamp"][: len(rows)]

    monkeypatch.setattr(captions_module, "answer", some)
    output = tmp_path / "captions.parquet"
    settings = Captions(model="tiny", source="both", max_new_tokens=4)
    write_captions(settings, PROMPT, model, data / "items.parquet", output, tmp_path / "state")
    rows = said(output)
    assert rows[3] == (None, "no picture")
    assert sorted((rows[1], rows[2], rows[4]), key=str) == sorted(
        [(None, "no answer"), (None, "no answer"), ("a lamp", "captioned")], key=str
    )
    assert "of 2 items the model was shown, it said nothing" in caplog.text


def test_many_broken_pictures_are_counted_and_a_few_named(
    model: LanguageModel, catalogue: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = catalogue(9)
    for item in range(1, 9):
        (tmp_path / "pictures" / f"{item}.png").unlink()
    settings = Captions(model="tiny", max_new_tokens=2, shard=2)
    with caplog.at_level("INFO", "tessera"):
        write_captions(settings, PROMPT, model, data / "items.parquet", tmp_path / "o.parquet", tmp_path / "state")
    told = [record.getMessage() for record in caplog.records]
    assert sum("no such file" in line for line in told) == NAMED
    assert "and 3 more pictures that cannot be read" in told
    assert "captions: 8 broken picture, 1 captioned" in told


def test_without_the_folder_of_pictures_nothing_is_written(
    model: LanguageModel, catalogue: Callable[..., Path], tmp_path: Path
) -> None:
    data = catalogue(2)
    (tmp_path / "pictures").rename(tmp_path / "elsewhere")
    with pytest.raises(LanguageModelError, match=r"pictures: no such folder; .*items.parquet expects"):
        write_captions(Captions(model="m"), PROMPT, model, data / "items.parquet", tmp_path / "o", tmp_path / "state")
    assert not (tmp_path / "o").exists()
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("source", ["text", "both"])
def test_a_catalogue_without_any_text_is_told(
    source: Literal["text", "both"], model: LanguageModel, catalogue: Callable[..., Path], tmp_path: Path
) -> None:
    items = catalogue(2, texts=[None, None]) / "items.parquet"
    with pytest.raises(LanguageModelError, match=f"no item has a text, but it is asked for .source '{source}'"):
        write_captions(Captions(model="m", source=source), PROMPT, model, items, tmp_path / "o", tmp_path / "state")
    assert not (tmp_path / "o").exists()


def test_an_answer_ends_with_the_end_token(model: LanguageModel) -> None:
    """A head that says only the end answers nothing; one that never says it goes on to the limit."""
    question = Question(model, "text", "lamp")
    rows, _ = question.rows([[("title", "Oak")]], [None], 8)
    head = torch.nn.Linear(model.width, len(model.tokenizer))
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    model.full.set_output_embeddings(head)  # type: ignore[operator]
    head.bias.data[model.tokenizer.convert_tokens_to_ids("x")] = 1
    assert answer(question, rows, [], 3) == ["xxx"]
    head.bias.data[model.end_token] = 2
    assert answer(question, rows, [], 3) == [""]


def test_one_by_one_a_model_says_the_same_as_in_a_batch(
    model: LanguageModel, catalogue: Callable[..., Path], tmp_path: Path
) -> None:
    data = catalogue(6, texts=["Oak", "A much longer title of a lamp", "Teal star", "Dots", "x", "Oak lamp is oak"])
    told = []
    for batch in (1, 6):
        settings = Captions(model="tiny", source="both", max_new_tokens=8, batch=batch)
        output = tmp_path / f"{batch}.parquet"
        write_captions(settings, PROMPT, model, data / "items.parquet", output, tmp_path / "state")
        told.append(said(output))
    assert told[0] == told[1]
    assert len({text for text, _ in told[0].values()}) > 1  # the random model does answer what it is shown


@pytest.mark.parametrize("resized", [True, False])
def test_patches_are_counted_without_pixels(model: LanguageModel, resized: bool) -> None:
    processor: Any = model.image_processor
    step = int(processor.patch_size * processor.merge_size)
    processor.do_resize = resized
    for width, height in ((16, 16), (90, 31), (33, 200), (64, 64), (500, 7)):
        sides = (width, height) if resized else (step * (1 + width // 40), step * (1 + height // 40))
        picture = Image.new("RGB", sides, "red")
        counted, read = without_pixels(model, picture), read_pixels(model, [picture])[0]
        assert counted.patches.shape == read.patches.shape
        assert counted.patches.is_meta
        assert counted.tokens(2) == read.tokens(2)


@pytest.mark.parametrize("source", ["image", "both"])
def test_pixels_are_those_of_one_batch(
    source: Literal["image", "both"], model: LanguageModel, catalogue: Callable[..., Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A group's pixels, of eight batches, were in memory at once, and more than its job asks for."""
    items = catalogue(7, texts=[f"Oak lamp{' of oak' * n}" for n in range(7)]) / "items.parquet"
    for item in (2, 5):
        Image.new("RGB", (60, 30), "teal").save(tmp_path / "pictures" / f"{item}.png")
    shown = ShownCatalogue(Question(model, source, "lamp"), PROMPT, items, 4096)
    at_once: list[int] = []

    def counted(model: LanguageModel, pictures: list[Any]) -> Any:
        at_once.append(len(pictures))
        return read_pixels(model, pictures)

    monkeypatch.setattr(shown_module, "read_pixels", counted)
    seen, batches, _ = shown.ask(range(1, 8), 3, 4)
    assert at_once == []
    asked = list(batches)
    assert at_once == [3, 3, 1]
    pixels = read_pixels(model, [seen.pictures[item] for item in seen.asked])
    rows, _ = shown.question.rows([shown.attributes.get(item, []) for item in seen.asked], pixels, 4)
    assert sorted(item for batch in asked for item in batch.items) == list(range(1, 8))
    lengths = [len(row) for batch in asked for row in batch.rows]
    assert lengths == sorted(lengths, reverse=True)
    for batch in asked:
        for item, row, read in zip(batch.items, batch.rows, batch.pixels, strict=True):
            assert row == rows[item - 1]
            assert read is not None
            assert torch.equal(read.patches, pixels[item - 1].patches)
            assert torch.equal(read.grid, pixels[item - 1].grid)


def test_answers_are_the_likeliest_tokens_of_whole_passes(
    model: LanguageModel, catalogue: Callable[..., Path], tmp_path: Path
) -> None:
    """Against the model run anew for every token, without a cache, with positions of the picture."""
    catalogue(2)
    question = Question(model, "image", "lamp")
    pixels = read_pixels(model, [open_picture(tmp_path / "pictures" / "1.png")])
    rows, _ = question.rows([[]], [pixels[0]], 6)
    ids = torch.tensor(rows)
    assert int((ids == question.image_token).sum()) == 4
    model.full.generation_config.repetition_penalty = 9.0  # a model's own habits step aside
    spoken = answer(question, rows, pixels, 6)[0]
    for _ in range(6):
        whole = model.full(
            input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels[0].patches,
            image_grid_thw=pixels[0].grid[None], mm_token_type_ids=(ids == question.image_token).int(),
        )  # fmt: skip
        best = whole.logits[:, -1].argmax(-1)
        if int(best) == model.end_token:
            break
        ids = torch.cat([ids, best[None]], 1)
    wanted = model.tokenizer.decode(ids[0, len(rows[0]) :], skip_special_tokens=True)
    assert spoken == " ".join(wanted.split())


@pytest.mark.parametrize("later", [3, 16, 512])
def test_a_killed_run_goes_on_with_the_next_shard(
    model: LanguageModel, catalogue: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: int
) -> None:
    items = catalogue(28) / "items.parquet"
    settings = Captions(model="tiny", source="image", max_new_tokens=4, batch=1, shard=3)
    whole = Captions(model="tiny", source="image", max_new_tokens=4, batch=1)
    write_captions(whole, PROMPT, model, items, tmp_path / "whole.parquet", tmp_path / "state-1")
    real = captions_module._caption
    asked: list[int] = []

    def dies(settings: Captions, shown: ShownCatalogue, items: list[int]) -> object:
        asked.extend(items)
        if len(asked) == 16:
            raise KeyboardInterrupt
        return real(settings, shown, items)

    monkeypatch.setattr(captions_module, "_caption", dies)
    for shard in (3, later):
        cut = settings.model_copy(update={"shard": shard})
        try:
            write_captions(cut, PROMPT, model, items, tmp_path / "b.parquet", tmp_path / "state-2")
        except KeyboardInterrupt:
            assert not (tmp_path / "b.parquet").exists()
    # shards are whole groups of eight batches; what was said is not asked again, however the rest is cut
    assert asked == [*range(1, 17), *range(9, 29)]
    assert (tmp_path / "whole.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert not (tmp_path / "state-2").exists()


@pytest.mark.parametrize("jobs", [2, 3, 7])
def test_parts_put_together_are_the_captions_of_one_job(
    jobs: int, model: LanguageModel, catalogue: Callable[..., Path], tmp_path: Path
) -> None:
    items = catalogue(28, [None if item == 4 else f"{item}.png" for item in range(1, 29)]) / "items.parquet"
    (tmp_path / "pictures/20.png").write_bytes(b"broken")
    settings = Captions(model="tiny", source="image", max_new_tokens=4, batch=1, jobs=jobs)
    write_captions(settings, PROMPT, model, items, tmp_path / "whole.parquet", tmp_path / "state")
    parts = [
        json.loads(json.dumps(ask_of_items(settings, PROMPT, model, items, tmp_path / f"state-{part}", (part, jobs))))
        for part in range(jobs)
    ]
    assert [len(part["rows"]) % 8 for part in parts[:-1]] == [0] * (jobs - 1)  # whole groups
    assert sum(bool(part["rows"]) for part in parts) == min(jobs, 4)
    write_said(settings, PROMPT, parts, tmp_path / "joined.parquet")
    assert (tmp_path / "joined.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    with pytest.raises(ValueError, match="its parts are not of one catalogue"):
        write_said(settings, PROMPT, parts[::-1], tmp_path / "wrong.parquet")


def test_pictures_are_not_shown_to_a_model_that_sees_none(
    qwen2: Path, bert: Path, built: Path, tiny: BuiltModel, catalogue: Callable[..., Path], tmp_path: Path
) -> None:
    data = catalogue(2)
    place = (data / "items.parquet", tmp_path / "out.parquet", tmp_path / "state")
    decoder, encoder = (load_model(FolderModel(folder=str(folder))) for folder in (qwen2, bert))
    for source in ("image", "both"):
        with pytest.raises(LanguageModelError, match=f"source: {source} shows pictures, but the model is a decoder"):
            write_captions(Captions(model="m", source=source), PROMPT, decoder, *place)  # type: ignore[arg-type]
    with pytest.raises(LanguageModelError, match="this is an encoder"):
        write_captions(Captions(model="m", source="text"), PROMPT, encoder, *place)
    write_captions(Captions(model="m", source="text", max_new_tokens=3), PROMPT, decoder, *place)
    assert len(said(place[1])) == 2
    bare = catalogue(2, images=[None, None])
    settings = Captions(model="m", source="image")
    with pytest.raises(LanguageModelError, match="no item has a picture"):
        write_captions(settings, PROMPT, load_model(tiny, built), bare / "items.parquet", *place[1:])


def test_a_text_that_is_too_long_loses_its_end_and_the_frame_stays(
    model: LanguageModel, catalogue: Callable[..., Path], tmp_path: Path
) -> None:
    question = Question(model, "both", "lamp")
    catalogue(1)
    pixels = read_pixels(model, [open_picture(tmp_path / "pictures" / "1.png")])
    rows, cut = question.rows([[("title", "oak " * 400)]], [pixels[0]], 16)
    assert (cut, len(rows[0])) == (1, model.context - 16)
    assert rows[0].count(question.image_token) == 4
    assert tuple(rows[0][-len(question.frame.after) :]) == question.frame.after
    data = catalogue(2, texts=["oak " * 400, "oak"])
    prompt = ItemPrompt(domain="lamp", max_characters=4000)
    settings = Captions(model="m", source="text", max_new_tokens=3)
    write_captions(settings, prompt, model, data / "items.parquet", tmp_path / "o.parquet", tmp_path / "state")
    assert b'"cut": 1' in pq.read_schema(tmp_path / "o.parquet").metadata[b"tessera"]


def test_without_a_chat_template_texts_are_asked_in_plain_words(
    qwen2: Path, catalogue: Callable[..., Path], tmp_path: Path
) -> None:
    (qwen2 / "chat_template.jinja").unlink()
    model = load_model(FolderModel(folder=str(qwen2)))
    assert model.tokenizer.chat_template is None
    question = Question(model, "text", "lamp")
    rows, _ = question.rows([[("title", "oak")]], [None], 4)
    told = model.tokenizer.decode(rows[0])
    assert told.endswith("The lamp has the following attributes.\ntitle is oak")
    assert "<|im_start|>" not in told


@pytest.mark.parametrize("shown", ["", "<|image_pad|><|image_pad|>"])
def test_a_chat_template_that_shows_no_picture_or_two_is_refused(model: LanguageModel, shown: str) -> None:
    """Such as that of the model for texts alone, or of another family."""
    model.tokenizer.chat_template = (
        "{% for m in messages %}{% for p in m.content %}{% if p.type == 'image' %}"
        + shown
        + "{% else %}{{ p.text }}{% endif %}{% endfor %}{% endfor %}"
    )
    count = shown.count("image_pad")
    with pytest.raises(LanguageModelError, match=rf"makes {count} tokens \d+ .* of a picture, expected one"):
        Question(model, "both", "lamp")


def test_a_context_without_room_for_the_question_is_told(model: LanguageModel) -> None:
    words = r"context of \d+ tokens does not hold the question \(\d+\) and an answer \(\d+\); ask for a shorter answer"
    with pytest.raises(LanguageModelError, match=words):
        Question(model, "text", "lamp").rows([[("title", "oak")]], [None], model.context)


def test_an_instruction_of_ones_own_is_what_is_asked(model: LanguageModel) -> None:
    question = Question(model, "text", "lamp", "Whom does it suit?")
    rows, _ = question.rows([[("title", "oak")]], [None], 4)
    told = model.tokenizer.decode(rows[0])
    assert "user\nWhom does it suit?\nThe lamp has the following attributes.\ntitle is oak<|im_end|>" in told
    assert told.endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"rows": []}', '{"rows": [[9, "x", "captioned"]], "cut": 0, "broken": []}']
)
def test_a_damaged_shard_is_refused_by_name(
    built: Path, tiny: BuiltModel, catalogue: Callable[..., Path], tmp_path: Path, damage: str
) -> None:
    items = catalogue(4) / "items.parquet"
    shard = tmp_path / "state" / "shard-000000000-4.json"
    shard.parent.mkdir()
    shard.write_text(damage)
    settings = Captions(model="tiny", source="text", max_new_tokens=2, shard=2)
    with pytest.raises(ValueError, match=r"shard-000000000-4\.json: is no shard of these captions; remove it"):
        write_captions(
            settings, ItemPrompt(domain="lamp"), load_model(tiny, built), items, tmp_path / "c.parquet", shard.parent
        )
    assert not (tmp_path / "c.parquet").exists()
    shard.unlink()
    write_captions(
        settings, ItemPrompt(domain="lamp"), load_model(tiny, built), items, tmp_path / "c.parquet", shard.parent
    )
    assert not shard.parent.exists()
