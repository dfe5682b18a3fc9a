"""Our T5 against transformers' with the same weights: states, logits, gradients, and a token at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration

from tessera.recommenders.t5 import Attention, Block, Decoder, Encoder, T5Shape, hidden

SHAPE = T5Shape(dim=24, inner_dim=40, layers=3, heads=3, head_dim=10)
VOCABULARY = 50


def _attention_pairs(ours: Attention, theirs) -> list[tuple[Tensor, Tensor]]:
    return [
        (ours.query.weight, theirs.q.weight),
        (ours.key.weight, theirs.k.weight),
        (ours.value.weight, theirs.v.weight),
        (ours.out.weight, theirs.o.weight),
    ]


def parameter_pairs(ours: Encoder | Decoder, theirs) -> list[tuple[Tensor, Tensor]]:
    """Our parameters beside those of a stack of transformers."""
    bias = theirs.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    pairs = [(ours.positions.weight, bias), (ours.norm.weight, theirs.final_layer_norm.weight)]
    for block, other in zip(ours.blocks, theirs.block, strict=True):
        assert isinstance(block, Block)
        layers = list(other.layer)
        pairs.append((block.own_norm.weight, layers[0].layer_norm.weight))
        pairs += _attention_pairs(block.own, layers[0].SelfAttention)
        if block.read is not None and block.read_norm is not None:
            pairs.append((block.read_norm.weight, layers[1].layer_norm.weight))
            pairs += _attention_pairs(block.read, layers[1].EncDecAttention)
        pairs.append((block.inner_norm.weight, layers[-1].layer_norm.weight))
        pairs.append((block.inner.inner.weight, layers[-1].DenseReluDense.wi.weight))
        pairs.append((block.inner.out.weight, layers[-1].DenseReluDense.wo.weight))
    return pairs


def transformers_t5(shape: T5Shape, vocabulary: int, **settings) -> T5ForConditionalGeneration:
    config = T5Config(
        vocab_size=vocabulary, d_model=shape.dim, d_kv=shape.head_dim, d_ff=shape.inner_dim, num_layers=shape.layers,
        num_decoder_layers=shape.layers, num_heads=shape.heads, dropout_rate=0.0, feed_forward_proj="relu",
        tie_word_embeddings=True, scale_decoder_outputs=True, pad_token_id=0, eos_token_id=None,
        decoder_start_token_id=vocabulary - 1, **settings,
    )  # fmt: skip
    return T5ForConditionalGeneration(config)


@pytest.fixture(scope="module")
def pair():
    torch.manual_seed(0)
    theirs = transformers_t5(SHAPE, VOCABULARY)
    encoder, decoder = Encoder(SHAPE), Decoder(SHAPE)
    with torch.no_grad():
        for stack, other in ((encoder, theirs.encoder), (decoder, theirs.decoder)):
            for ours, copied in parameter_pairs(stack, other):
                # weights that are not one or tiny, so that a norm or a bias in the wrong place shows
                copied.add_(torch.randn_like(copied) * 0.05)
                ours.copy_(copied)
    return encoder, decoder, theirs


@pytest.fixture(scope="module")
def tokens():
    torch.manual_seed(1)
    # long enough that distances fall into the logarithmic buckets of both sides
    lengths = torch.tensor([150, 37, 1])
    visible = torch.arange(150) < lengths[:, None]
    read = torch.randint(1, VOCABULARY, (3, 150)).masked_fill(~visible, 0)
    written = torch.randint(1, VOCABULARY, (3, 40))
    return read, visible, written


def test_states_and_gradients_are_those_of_transformers(pair, tokens):
    encoder, decoder, theirs = pair
    read, visible, written = tokens
    vectors = theirs.shared.weight.detach().clone().requires_grad_()
    states = encoder(vectors[read], visible)
    out = decoder(vectors[written], decoder.remember(states, hidden(visible)))
    logits = out @ vectors.T * SHAPE.dim**-0.5
    expected = theirs(
        input_ids=read, attention_mask=visible.long(), decoder_input_ids=written, output_hidden_states=True
    )
    reference = expected.encoder_last_hidden_state
    torch.testing.assert_close(states[visible], reference[visible], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits, expected.logits, atol=2e-5, rtol=1e-5)

    weight = torch.randn_like(logits)
    theirs.zero_grad()
    ((expected.logits * weight).sum() / 100).backward()
    pairs = parameter_pairs(encoder, theirs.encoder) + parameter_pairs(decoder, theirs.decoder)
    gradients = torch.autograd.grad((logits * weight).sum() / 100, [vectors, *(ours for ours, _ in pairs)])
    for ours, other in zip(gradients, [theirs.shared.weight, *(other for _, other in pairs)], strict=True):
        scale = float(other.grad.abs().max())
        torch.testing.assert_close(ours, other.grad, atol=2e-5 * scale, rtol=1e-4)


def test_padding_changes_nothing(pair, tokens):
    encoder, decoder, _ = pair
    _, visible, _ = tokens
    vectors = torch.randn(3, 150, SHAPE.dim)
    other = torch.where(visible[:, :, None], vectors, torch.randn(3, 150, SHAPE.dim))
    x = torch.randn(3, 4, SHAPE.dim)
    one, two = (decoder(x, decoder.remember(encoder(v, visible), hidden(visible))) for v in (vectors, other))
    torch.testing.assert_close(one, two, atol=0, rtol=0)
    alone = decoder(x[1:2], decoder.remember(encoder(vectors[1:2, :37], visible[1:2, :37]), hidden(visible[1:2, :37])))
    torch.testing.assert_close(alone, one[1:2], atol=1e-5, rtol=1e-5)


def test_a_token_at_a_time_is_all_at_once(pair, tokens):
    """Rows of a batch entry are independent and read the same memory."""
    encoder, decoder, _ = pair
    _, visible, _ = tokens
    memory = decoder.remember(encoder(torch.randn(3, 150, SHAPE.dim), visible), hidden(visible))
    x = torch.randn(3, 5, 4, SHAPE.dim)  # five rows of four tokens for each entry
    cache: list = []
    steps = []
    for place in range(4):
        states, cache = decoder.step(x[:, :, place], cache, memory)
        steps.append(states)
    together = decoder(x.flatten(0, 1), memory).view_as(x)
    for row in range(5):
        expected = decoder(x[:, row], memory)
        torch.testing.assert_close(together[:, row], expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(torch.stack([s[:, row] for s in steps], 1), expected, atol=1e-5, rtol=1e-5)


def test_a_causal_encoder_sees_what_came_before_alone():
    torch.manual_seed(0)
    encoder = Encoder(SHAPE, causal=True)
    x = torch.randn(2, 9, SHAPE.dim)
    whole = encoder(x, torch.ones(2, 9, dtype=torch.bool))
    for end in (1, 4):
        start = encoder(x[:, :end], torch.ones(2, end, dtype=torch.bool))
        torch.testing.assert_close(whole[:, :end], start, atol=1e-5, rtol=1e-5)


def test_dropout_is_on_in_training_alone():
    torch.manual_seed(0)
    shape = T5Shape(16, 32, 1, 2, 8, dropout=0.5)
    encoder = Encoder(shape)
    x, visible = torch.randn(2, 6, 16), torch.ones(2, 6, dtype=torch.bool)
    assert not torch.equal(encoder(x, visible), encoder(x, visible))
    encoder.eval()
    assert torch.equal(encoder(x, visible), encoder(x, visible))
