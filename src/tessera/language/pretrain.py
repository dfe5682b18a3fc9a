"""Making the built model: tokenizer and weights from nothing but the dataset's own texts and pictures.

It learns to describe pictures first, and then four tasks mixed in every step: saying on what is told of an item
(attributes in a new order each time), and describing an item from its picture, from its text and from both, as it will
be asked when captions are written. Only items with
training interactions are read. Captions of pictures come from a teacher that sees no more than the pixels: shapes drawn
afresh with what they were drawn from (`drawn`), or the dataset's own pictures with the names of their colours and the
item's short attributes (`own`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tessera.artifacts.files import write_json
from tessera.artifacts.logs import Progress, log
from tessera.data.catalogue_pictures import CataloguePictures, warn_broken
from tessera.data.dataset import load_dataset
from tessera.data.pictures import PictureError
from tessera.language.answers import answer
from tessera.language.built import END, make_image_processor, make_model, save_built, train_tokenizer
from tessera.language.colours import colour_words
from tessera.language.drawn import draw, read_caption
from tessera.language.models import LanguageModel, LanguageModelError, quiet
from tessera.language.prompts import REQUEST, Attributes, attribute_text, domain_sentence, item_attributes
from tessera.language.questions import INSTRUCTIONS, Pixels, Question, Source, picture_inputs, picture_positions
from tessera.language.tokens import SYSTEM, Frame, chat_frame, pad_rows, plain_frame, text_ids
from tessera.settings.language import ANSWER, BuiltModel, ItemPrompt
from tessera.training.engine import Engine
from tessera.training.losses import Losses, Term
from tessera.training.machine import Machine
from tessera.training.phases import FixedSteps, Optimizer, Phase, Position, Update, Updates

TASKS = ("image", "both", "text", "continue", "image", "both", "text", "image")
"""The task of each row of a batch, in turn; of both, too, the picture is described first."""
PICTURES_FIRST = 0.35
"""In this share of the steps pictures alone are described: shapes are learned in fewer and cheaper steps without texts
beside them."""
DRAWINGS = 16_000
"""Pictures drawn for the whole training; each is also shown mirrored, which no shape minds."""
CHECKED = 400
"""Pictures that the model is asked about at the end and was not trained on; and item texts that it was trained on."""
ALIKE = ("circle", "hexagon")
"""Shapes that are shown twice as often: nearly all mistakes are between these two."""
KEPT_ANSWERS = 50_000
"""Descriptions whose tokens are kept: pictures of few shapes and colours are said in the same words."""
SHORT = 24
"""An attribute's value of at most so many characters, without digits, is a short one."""
LONGEST_SUMMARY = 120


@dataclass(frozen=True)
class Example:
    """One row of a batch."""

    ids: list[int]
    start: int
    """Where what is to be learned begins."""
    pixels: Pixels | None


class Shown:
    """Pictures as the image processor cuts them, a byte a colour: eight times smaller than what the model reads."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self.patches: list[np.ndarray] = []
        self.grids: list[np.ndarray] = []
        self.mean = np.array(processor.image_mean, np.float32).reshape(1, 3, 1)
        self.std = np.array(processor.image_std, np.float32).reshape(1, 3, 1)

    def __len__(self) -> int:
        return len(self.patches)

    def add(self, pictures: Sequence[Any]) -> None:
        """Keep pictures in RGB."""
        made = self.processor(images=list(pictures), return_tensors="np", do_rescale=False, do_normalize=False)
        grids = made["image_grid_thw"]
        cuts = np.cumsum(grids.prod(-1))[:-1]
        for patches, grid in zip(np.split(made["pixel_values"], cuts), grids, strict=True):
            one_time = patches.reshape(len(patches), 3, 2, -1)[:, :, 0]
            self.patches.append(one_time.astype(np.uint8))
            self.grids.append(grid)

    def pixels(self, index: int, mirrored: bool = False) -> Pixels:
        """One picture as the model reads it."""
        patches, grid = self.patches[index], self.grids[index]
        if mirrored:
            patches = _mirror(patches, grid, int(self.processor.merge_size))
        # in numpy, whose calls are shorter than torch's: there are thirty pictures a step
        values = (patches.astype(np.float32) / 255 - self.mean) / self.std
        both = np.repeat(values[:, :, None], 2, axis=2)
        return Pixels(torch.from_numpy(both.reshape(len(patches), -1)), torch.from_numpy(grid))


def _mirror(patches: np.ndarray, grid: np.ndarray, merge: int) -> np.ndarray:
    """Left and right exchanged; patches lie in squares of merge x merge."""
    side = round(patches.shape[-1] ** 0.5)
    _, high, wide = grid.tolist()
    blocks = patches.reshape(high // merge, wide // merge, merge, merge, 3, side, side)
    return np.ascontiguousarray(blocks[:, ::-1, :, ::-1, :, :, ::-1]).reshape(patches.shape)


def summary(attributes: Attributes) -> str:
    """What is to be said of an item's text: short values under their names; the title where there are none.

    The names say where in the text to look. Sentences are left out: so small a model does not learn to repeat them, and
    would invent.
    """
    kept = [
        (name, value) for name, value in attributes if name != "title" and len(value) <= SHORT and not _is_number(value)
    ]
    while len(kept) > 1 and len(attribute_text(kept)) > LONGEST_SUMMARY:
        kept.pop()
    return attribute_text(kept) if kept else attributes[0][1][:LONGEST_SUMMARY].strip()


def _is_number(value: str) -> bool:
    return not any(character.isalpha() for character in value)


def short_attributes(attributes: Attributes) -> list[str]:
    """Values that may be guessed from a picture: category, genre and the like, two at most."""
    values = [value for name, value in attributes if name != "title" and len(value) <= SHORT]
    return [value for value in values if value.replace("-", "a").replace(" ", "a").isalpha()][:2]


class Teacher:
    """What the model is shown and what it is to say: the examples of every step."""

    def __init__(self, settings: BuiltModel, prompt: ItemPrompt, drawn: bool, data: Path) -> None:
        """
        Args:
            settings: of the model.
            prompt: how items are told.
            drawn: pictures drawn afresh, else the dataset's own.
            data: folder of the prepared dataset.
        Raises:
            LanguageModelError: no item that is trained on has a text or a picture, or the folder of pictures is not
                there.
        """
        self.settings, self.prompt, self.drawn = settings, prompt, drawn
        counts = load_dataset(data).train_counts
        self.attributes = {
            item: pairs for item, pairs in item_attributes(data / "items.parquet", prompt).items() if counts[item] > 0
        }
        self.described = sorted(self.attributes)
        self.shown = Shown(make_image_processor(settings))
        self.captions: list[str] = []
        self.held_out: list[int] = []
        """Pictures of `shown` that are kept for the end."""
        self.of_item: dict[int, int] = {}
        self.by_word: dict[str, list[int]] = {}
        if drawn:
            self._draw()
        else:
            self._open(data, np.flatnonzero(counts))
        kept = set(self.held_out)
        self.trained = [number for number in range(len(self.shown)) if number not in kept]
        self.often = self.trained + [number for number in self.trained if drawn and self._alike(number)]
        """What is drawn from when a picture alone is shown."""
        # once, and not for every example: it goes through the catalogue
        self.paired = [item for item in self.described if item in self.of_item and self.of_item[item] not in kept]
        """Items with a text and a picture of their own that is trained on."""
        self.tasks = tuple(task for task in TASKS if self._possible(task))
        if not self.tasks:
            raise LanguageModelError(
                f"{data}: no item with training interactions has a text or a picture to learn from"
            )

    def _alike(self, number: int) -> bool:
        return read_caption(self.captions[number])["shape"] in ALIKE

    def _possible(self, task: str) -> bool:
        if task == "image":
            return bool(self.trained)
        if task == "both":
            return bool(self.described) and bool(self.trained if self.drawn else self.paired)
        return bool(self.described)

    def _draw(self) -> None:
        wanted = min(DRAWINGS, self.settings.training.steps * self.settings.training.batch)
        with Progress("drawing", wanted + CHECKED, "pictures") as progress:
            for stream, count in ((0, wanted), (1, CHECKED)):
                drawings = draw(self.settings.training.seed, stream, count)
                for start in range(0, count, 512):
                    some = drawings[start : start + 512]
                    self.shown.add([drawing.picture for drawing in some])
                    self.captions += [drawing.caption for drawing in some]
                    progress.update(len(some))
        self.held_out = list(range(wanted, wanted + CHECKED))
        for number, said in enumerate(self.captions[:wanted]):
            self.by_word.setdefault(str(read_caption(said)["category"]), []).append(number)

    def _open(self, data: Path, items: np.ndarray) -> None:
        pictures = CataloguePictures(data / "items.parquet")
        if missing := pictures.missing():
            raise LanguageModelError(f"{missing}; the model is to learn from them (pictures: own)")
        wanted = [item for item in items.tolist() if item in pictures]
        broken: list[str] = []
        for item in wanted:
            try:
                picture = pictures.open(item)
            except PictureError as error:
                broken.append(f"item {item}: {error}")
                continue
            self.of_item[item] = len(self.shown)
            self.shown.add([picture])
            self.captions.append("; ".join([colour_words(picture), *short_attributes(self.attributes.get(item, []))]))
        warn_broken(broken, len(wanted))
        random = np.random.default_rng((self.settings.training.seed, 2))
        kept = random.permutation(len(self.shown))[: min(CHECKED, len(self.shown) // 20)]
        self.held_out = sorted(kept.tolist())

    def texts(self) -> list[str]:
        """Everything that the tokenizer is trained on."""
        said = [f" {attribute_text(pairs)}; {summary(pairs)}" for pairs in self.attributes.values()]
        # as often as the items, so that the words of descriptions become tokens of their own
        described = self.captions[: max(200, len(said))]
        frame = [
            SYSTEM,
            REQUEST,
            domain_sentence(self.prompt.domain),
            *INSTRUCTIONS.values(),
            "system\nuser\nassistant\n",
        ]
        return said + described + frame * 20

    # ------------------------------------------------------------ examples

    def prepare(self, model: LanguageModel) -> None:
        """Make the frames of all questions for a model."""
        domain = self.prompt.domain
        self.model = model
        sources: tuple[Source, ...] = ("image", "text", "both")
        wanted = [source for source in sources if source in self.tasks]
        self.questions = {source: Question(model, source, domain) for source in wanted}
        sentence = f"{domain_sentence(domain)}\n"
        self.said_tokens = lru_cache(KEPT_ANSWERS)(self._said_tokens)
        self.asked: dict[int, list[int]] = {}
        """The question about a picture alone, by how many tokens stand for the picture."""
        self.frames = [chat_frame(model, f"{REQUEST}\n{sentence}"), plain_frame(model, sentence)]

    def example(self, step: int, row: int) -> Example:
        """The example of a row of the whole batch, the same however many processes share it."""
        random = np.random.default_rng((self.settings.training.seed, step, row))
        early = step < PICTURES_FIRST * self.settings.training.steps and "image" in self.tasks
        task = "image" if early else self.tasks[row % len(self.tasks)]
        if task == "continue":
            return self._continue(self.described[random.integers(len(self.described))], random)
        if task == "image":
            number = self.often[random.integers(len(self.often))]
            return self._describe("image", [], number, self.captions[number], random)
        items = self.described if task == "text" or self.drawn else self.paired
        item = items[random.integers(len(items))]
        pairs = self._shuffled(self.attributes[item], random)
        said = summary(self.attributes[item])
        if task == "text":
            return self._describe("text", pairs, None, said, random)
        number = self._beside(item, random)
        return self._describe("both", pairs, number, f"{self.captions[number]}; {said}", random)

    def _beside(self, item: int, random: np.random.Generator) -> int:
        """A picture beside an item's text: its own, or a drawn one that shows the category of the text."""
        if not self.drawn:
            return self.of_item[item]
        fitting = self.by_word.get(dict(self.attributes[item]).get("category", ""), self.trained)
        return int(fitting[random.integers(len(fitting))])

    def _shuffled(self, pairs: Attributes, random: np.random.Generator) -> Attributes:
        return [pairs[i] for i in random.permutation(len(pairs))]

    def _continue(self, item: int, random: np.random.Generator) -> Example:
        frame: Frame = self.frames[random.integers(len(self.frames))]
        text = attribute_text(self._shuffled(self.attributes[item], random))
        ids = text_ids(self.model.tokenizer, [text])[0][: self.model.context - len(frame)]
        return Example([*frame.before, *ids, *frame.after], len(frame.before), None)

    def _describe(
        self, source: Source, pairs: Attributes, number: int | None, said: str, random: np.random.Generator
    ) -> Example:
        seen = None if number is None else self.shown.pixels(number, mirrored=bool(random.integers(2)))
        asked = self._asked(source, pairs, seen)
        return Example([*asked, *self.said_tokens(said)], len(asked), seen)

    def _said_tokens(self, said: str) -> tuple[int, ...]:
        tokenizer = self.model.tokenizer
        tokens = text_ids(tokenizer, [said])[0][: ANSWER - 1]
        return (*tokens, tokenizer.convert_tokens_to_ids(END))

    def _asked(self, source: Source, pairs: Attributes, seen: Pixels | None) -> list[int]:
        question = self.questions[source]
        if source != "image" or seen is None:
            return question.rows([pairs], [seen], ANSWER)[0][0]
        size = seen.tokens(int(self.shown.processor.merge_size))
        if size not in self.asked:
            self.asked[size] = question.rows([pairs], [seen], ANSWER)[0][0]
        return self.asked[size]

    # ------------------------------------------------------------ at the end

    def check(self) -> dict[str, Any]:
        """What it says of pictures that were kept back and of the texts of some items: the share that is as wanted.

        Of drawn pictures also the share of every attribute.
        """
        return {**self._check_pictures(), **self._check_texts()}

    def _check_pictures(self) -> dict[str, Any]:
        if not self.held_out or "image" not in self.questions:
            return {}
        pixels = [self.shown.pixels(number) for number in self.held_out]
        said = self._answers("image", [[]] * len(pixels), pixels)
        wanted = [self.captions[number] for number in self.held_out]
        report: dict[str, Any] = {
            "pictures": len(wanted),
            "exact": _share([a == b for a, b in zip(said, wanted, strict=True)]),
            "examples": [{"said": a, "wanted": b} for a, b in list(zip(said, wanted, strict=True))[:5]],
        }
        if self.drawn:
            read = [(read_caption(a), read_caption(b)) for a, b in zip(said, wanted, strict=True)]
            report["attributes"] = {name: _share([a[name] == b[name] for a, b in read]) for name in read[0][1]}
        return report

    def _check_texts(self) -> dict[str, Any]:
        if "text" not in self.questions:
            return {}
        some = [self.attributes[item] for item in self._some_items()]
        said = self._answers("text", some, [None] * len(some))
        return {
            "texts": len(some),
            "texts_exact": _share([a == summary(pairs) for a, pairs in zip(said, some, strict=True)]),
        }

    def _some_items(self) -> list[int]:
        return self.described[:: max(1, len(self.described) // CHECKED)][:CHECKED]

    def _answers(self, source: Source, attributes: Sequence[Attributes], pixels: Sequence[Pixels | None]) -> list[str]:
        said: list[str] = []
        question = self.questions[source]
        for start in range(0, len(attributes), 100):
            seen = pixels[start : start + 100]
            rows, _ = question.rows(attributes[start : start + 100], seen, ANSWER)
            said += answer(question, rows, [one for one in seen if one is not None], ANSWER)
        return said

    @torch.no_grad()
    def text_bits(self) -> float | None:
        """How many bits a token of item texts costs the model; None where there are no texts."""
        if not self.described:
            return None
        random = np.random.default_rng(self.settings.training.seed)
        examples = [self._continue(item, random) for item in self._some_items()]
        losses = [row_losses(self.model, examples[start : start + 50]) for start in range(0, len(examples), 50)]
        return round(float(torch.cat(losses).mean()) / math.log(2), 4)


def _share(right: Sequence[bool]) -> float:
    return round(sum(right) / len(right), 4)


def row_losses(model: LanguageModel, examples: Sequence[Example]) -> Tensor:
    """(rows,) mean negative log-likelihood of what each example is to say."""
    full: Any = model.full
    ids, mask = pad_rows([example.ids for example in examples], model.pad_token)
    ids, mask = ids.to(model.device), mask.to(model.device)
    pixels = [example.pixels for example in examples if example.pixels is not None]
    image_token = int(full.config.image_token_id)
    inputs = picture_inputs(ids, pixels, image_token, model.device)
    if pixels:
        merge = int(full.config.vision_config.spatial_merge_size)
        inputs["position_ids"] = picture_positions(ids, mask, inputs["image_grid_thw"], image_token, merge)
    states = full.model(input_ids=ids, attention_mask=mask, use_cache=False, **inputs).last_hidden_state
    # the state before a token says it; only rows x places that are asked about meet the vocabulary
    starts = torch.tensor([example.start for example in examples], device=model.device)
    positions = torch.arange(ids.shape[1], device=model.device)
    asked = (positions[None] >= starts[:, None]) & mask.bool()
    row, place = asked.nonzero(as_tuple=True)
    losses = F.cross_entropy(model.logits(states[row, place - 1]).float(), ids[row, place], reduction="none")
    counts = asked.sum(1).clamp_min(1)
    return torch.zeros(len(ids), device=model.device).index_add(0, row, losses) / counts


def pretrain(
    settings: BuiltModel, prompt: ItemPrompt, source_kind: str, data: Path, output: Path, state: Path, machine: Machine
) -> None:
    """Make the tokenizer, train the model and write its folder, with the curve in training.json.

    Args:
        settings: sizes, teacher and training.
        prompt: how items are told.
        source_kind: the dataset's source; the demo world's pictures are of shapes that can be drawn afresh.
        data: folder of the prepared dataset.
        output: the model's folder.
        state: folder of the trainer's checkpoint, named by everything that training depends on.
        machine: device and processes.
    Raises:
        LanguageModelError: there is nothing to learn from, or the folder of pictures is not there.
        TrainingError: the loss became NaN or infinite.
    """
    quiet()
    drawn = settings.drawn(source_kind)
    teacher = Teacher(settings, prompt, drawn, data)
    tokenizer = train_tokenizer(teacher.texts(), settings)
    full = make_model(settings, tokenizer).to(machine.device)
    model = LanguageModel(
        full=full,
        tower=full.get_decoder(),
        tokenizer=tokenizer,
        kind="vision",
        width=settings.hidden,
        context=settings.context,
        image_processor=teacher.shown.processor,
        device=machine.device,
    )
    teacher.prepare(model)
    size = sum(parameter.numel() for parameter in full.parameters())
    log.info(
        "built model: %s parameters, %d tokens; %s texts and %s pictures to learn from",
        f"{size:,}", len(tokenizer), f"{len(teacher.described):,}", f"{len(teacher.trained):,}",
    )  # fmt: skip
    full.eval()
    bits = {"before": teacher.text_bits()}
    full.train()
    training = settings.training
    program = [Phase(_updates(teacher, machine), FixedSteps(training.steps), {"model": Optimizer(training)})]
    engine = Engine(full, program, training, training.seed, state, machine, "pretraining")
    history = engine.fit()
    full.eval()
    checked = teacher.check() if machine.first else {}
    bits["after"] = teacher.text_bits()
    if "pictures" in checked:
        log.info("captions of %d pictures kept back: %.1f %% exact %s",
                 checked["pictures"], 100 * checked["exact"], checked.get("attributes", ""))  # fmt: skip
    if "texts" in checked:
        log.info("item texts: %.1f %% of %d described as wanted, %.2f bits a token (%.2f before)",
                 100 * checked["texts_exact"], checked["texts"], bits["after"], bits["before"])  # fmt: skip
    if machine.first:
        write_json(
            output / "training.json",
            {"history": history, "checked": checked, "bits": bits, "parameters": size,
             "teacher": "drawn" if drawn else "own", "texts": len(teacher.described), "pictures": len(teacher.trained)},
        )  # fmt: skip
        save_built(output, full, tokenizer, teacher.shown.processor)
    engine.clear()


def _updates(teacher: Teacher, machine: Machine) -> Updates:
    rows = np.arange(teacher.settings.training.batch)

    def updates(_: None, at: Position) -> Iterable[Update]:
        examples = [teacher.example(at.step, int(row)) for row in machine.share(rows)]

        def losses() -> Losses:
            # pictures alone are short, texts are long: apart, there is little padding
            long = [len(example.ids) > 1.5 * min(len(other.ids) for other in examples) for example in examples]
            parts = [[e for e, far in zip(examples, long, strict=True) if far is side] for side in (False, True)]
            own = torch.cat([row_losses(teacher.model, part) for part in parts if part])
            return {"loss": Term(machine.gather(own.unsqueeze(1)).mean())}

        yield Update(losses)

    return updates
