"""Adapters on models of several kinds: merged, they compute what they computed beside."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model, LlamaConfig, LlamaModel

from tessera.language.lora import add_lora, lora_weights, merge_lora
from tessera.settings.lora import LoRA

torch.set_num_threads(1)

TOWERS = {
    "llama": lambda: LlamaModel(
        LlamaConfig(vocab_size=20, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2)
    ),
    "bert": lambda: BertModel(
        BertConfig(vocab_size=20, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2)
    ),
    "gpt2": lambda: GPT2Model(GPT2Config(vocab_size=20, n_embd=16, n_layer=1, n_head=2, n_positions=16)),
}
ADAPTED = {
    "llama": {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
    "bert": {"query", "key", "value", "dense"},
    "gpt2": {"c_attn", "c_proj", "c_fc"},
}


@pytest.mark.parametrize("kind", TOWERS)
def test_merged_adapters_compute_the_same(kind: str) -> None:
    torch.manual_seed(0)
    tower = TOWERS[kind]().eval()
    add_lora(tower, LoRA(rank=2, dropout=0.0))
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in lora_weights(tower)} == ADAPTED[kind]
    ids = torch.tensor([[3, 4, 5, 6]])
    with torch.no_grad():
        plain = tower(input_ids=ids).last_hidden_state
        for weight in lora_weights(tower).values():
            weight.normal_(std=0.2)
        beside = tower(input_ids=ids).last_hidden_state
        merge_lora(tower)
        merged = tower(input_ids=ids).last_hidden_state
    assert not lora_weights(tower)
    assert not torch.allclose(beside, plain, atol=1e-3)
    torch.testing.assert_close(merged, beside, atol=1e-5, rtol=1e-4)


def test_a_model_without_linear_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="has none"):
        add_lora(nn.Sequential(nn.Embedding(3, 4)), LoRA())
