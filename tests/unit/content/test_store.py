"""The content store: what is read is what the tokenizer and the image processor make of each item."""

import shutil
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "language"))
from tiny_vision import tiny_built, write_built, write_pictured

from tessera.artifacts.tables import ArtifactError
from tessera.content.store import ABSENT, BROKEN, PRESENT, ContentStore, write_store
from tessera.data.pictures import at_most, open_picture
from tessera.language.models import LanguageModel, load_model
from tessera.language.questions import read_pixels
from tessera.settings.language import ItemPrompt


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = tmp_path_factory.mktemp("model")
    return load_model(tiny_built(), write_built(folder / "model", tiny_built()))


def test_a_folder_of_pictures_that_is_gone_is_told(tmp_path: Path, model: LanguageModel) -> None:
    data = write_pictured(tmp_path, 2, ["1.png", "2.png"], ["Oak lamp", "Lamp"])
    shutil.rmtree(tmp_path / "pictures")
    with pytest.raises(ValueError, match=r"pictures: no such folder; .*items.parquet expects"):
        write_store(tmp_path / "store", data / "items.parquet", model, ItemPrompt(), max_pixels=4096)
    write_store(tmp_path / "store", data / "items.parquet", model, ItemPrompt())


def test_rows_resume_and_missing(tmp_path: Path, model: LanguageModel) -> None:
    images = ["1.png", None, "3.png", "4.png", "5.png"]
    texts = ["Oak lamp", "Lamp", None, "A lamp in teal", "Teal lamp"]
    data = write_pictured(tmp_path, 5, images, texts)
    (tmp_path / "pictures" / "4.png").write_bytes(b"no picture")
    folder = tmp_path / "store"

    def make() -> None:
        write_store(folder, data / "items.parquet", model, ItemPrompt(), max_pixels=4096, shard=2)

    make()
    store = ContentStore(folder)
    assert store.picture.tolist() == [ABSENT, PRESENT, ABSENT, PRESENT, BROKEN, PRESENT]
    assert store.text.tolist() == [ABSENT, PRESENT, PRESENT, ABSENT, PRESENT, PRESENT]
    rows = store.rows([5, 2, 3, 5])
    assert rows.texts[0] == rows.texts[3]
    assert rows.texts[2] == []
    assert "Teal lamp" in model.tokenizer.decode(rows.texts[0])
    for place, item in ((0, 5), (2, 3)):
        wanted = read_pixels(model, [at_most(open_picture(tmp_path / "pictures" / f"{item}.png"), 4096)])[0]
        seen = rows.pictures[place]
        assert seen is not None
        assert torch.equal(seen.patches, wanted.patches)
        assert torch.equal(seen.grid, wanted.grid)
    assert rows.pictures[1] is None
    with pytest.raises(ValueError, match="item 6 is not of the store, whose ids are 1 to 5"):
        store.rows([6])
    # as after a kill: the last shard and the index are not there; the others are not made again
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    kept = (folder / "00000.safetensors").stat().st_mtime_ns
    (folder / "store.json").unlink()
    (folder / "00002.safetensors").unlink()
    with pytest.raises(ArtifactError, match="no finished content store"):
        ContentStore(folder)
    make()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert (folder / "00000.safetensors").stat().st_mtime_ns == kept
    # another picture under the same name makes its shard again
    (tmp_path / "pictures" / "1.png").write_bytes((tmp_path / "pictures" / "3.png").read_bytes())
    make()
    first, third = ContentStore(folder).rows([1, 3]).pictures
    assert first is not None
    assert third is not None
    assert torch.equal(first.patches, third.patches)
