import pytest
import torch

from tessera.settings.backbones.bert4rec import BERT4RecSettings
from tessera.settings.backbones.gru4rec import GRU4RecSettings
from tessera.settings.backbones.mamba import MambaSettings
from tessera.settings.backbones.sasrec import SASRecSettings
from tessera.settings.backbones.srgnn import SRGNNSettings
from tessera.settings.kinds import implementation

SETTINGS = {
    "sasrec": SASRecSettings(dim=16, max_length=8, dropout=0.0),
    "gru4rec": GRU4RecSettings(dim=16, max_length=8, dropout=0.0),
    "bert4rec": BERT4RecSettings(dim=16, max_length=8, dropout=0.0),
    "mamba": MambaSettings(dim=16, max_length=8, dropout=0.0),
    "srgnn": SRGNNSettings(dim=16, max_length=8, dropout=0.0, steps=2),
}


@pytest.fixture(params=sorted(SETTINGS))
def backbone(request):
    torch.manual_seed(0)
    return implementation(SETTINGS[request.param])(SETTINGS[request.param]).eval()


VECTORS = torch.randn(21, 16, generator=torch.Generator().manual_seed(5))
HISTORIES = torch.tensor([[3, 7, 1, 0, 0], [4, 4, 9, 20, 2], [5, 0, 0, 0, 0]])
LENGTHS = torch.tensor([3, 5, 1])


def test_padding_changes_nothing(backbone):
    together = backbone.encode(HISTORIES, LENGTHS, VECTORS)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = backbone.encode(HISTORIES[row : row + 1, :length], LENGTHS[row : row + 1], VECTORS)
        torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=1e-5)


def test_the_padding_vector_is_never_read(backbone):
    poisoned = VECTORS.clone()
    poisoned[0] = 1e4
    torch.testing.assert_close(
        backbone.encode(HISTORIES, LENGTHS, poisoned), backbone.encode(HISTORIES, LENGTHS, VECTORS)
    )


@pytest.mark.parametrize("kind", ["sasrec", "gru4rec", "mamba"])
def test_a_causal_state_does_not_see_later_items(kind):
    torch.manual_seed(0)
    model = implementation(SETTINGS[kind])(SETTINGS[kind]).eval()
    inputs = torch.randn(1, 6, 16)
    changed = inputs.clone()
    changed[:, 4:] = torch.randn(1, 2, 16)
    before, after = (model.hidden(x, torch.tensor([6])) for x in (inputs, changed))
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


def test_sasrec_encode_is_the_last_state_of_the_full_pass():
    torch.manual_seed(0)
    model = implementation(SETTINGS["sasrec"])(SETTINGS["sasrec"]).double().eval()
    vectors = VECTORS.double()
    full = model.hidden(vectors[HISTORIES], LENGTHS)[torch.arange(3), LENGTHS - 1]
    torch.testing.assert_close(model.encode(HISTORIES, LENGTHS, vectors), full, atol=1e-12, rtol=1e-12)


def test_causal_examples_are_all_next_items(backbone):
    examples = backbone.examples(HISTORIES, VECTORS)
    if backbone.overlap == 0:
        pytest.skip("Cloze examples are tested on their own")
    assert examples.targets.tolist() == [7, 1, 4, 9, 20, 2]
    assert examples.owners.tolist() == [0, 0, 1, 1, 1, 1]
    # the state that predicts the last item is what scoring would give one step earlier
    before = backbone.encode(torch.tensor([[4, 4, 9, 20]]), torch.tensor([4]), VECTORS)
    torch.testing.assert_close(examples.states[-1], before[0], atol=1e-5, rtol=1e-5)


def test_cloze_hides_at_least_one_item_of_each_history_and_never_padding():
    torch.manual_seed(0)
    model = implementation(SETTINGS["bert4rec"])(SETTINGS["bert4rec"]).train()
    shares = []
    for _ in range(200):
        hidden = model.draw(HISTORIES)
        assert hidden.any(1).all()
        assert not (hidden & (HISTORIES == 0)).any()
        shares.append(hidden[1].float().mean().item())
    # 0.3 of five items, or the last alone in a fifth of the draws, or one where none was drawn
    assert sum(shares) / 200 == pytest.approx(0.8 * (0.3 + 0.7**5 / 5) + 0.2 / 5 * 1, abs=0.05)


def test_cloze_targets_do_not_leak_into_their_own_state():
    torch.manual_seed(0)
    model = implementation(SETTINGS["bert4rec"])(SETTINGS["bert4rec"]).eval()
    hidden = torch.tensor([[False, True, False]])
    states = []
    for target in (7, 8):
        history = torch.tensor([[3, target, 1]])
        model.draw = lambda _: hidden
        states.append(model.examples(history, VECTORS).states)
    torch.testing.assert_close(states[0], states[1])


def test_the_mask_sees_what_stands_on_both_sides():
    torch.manual_seed(0)
    model = implementation(SETTINGS["bert4rec"])(SETTINGS["bert4rec"]).eval()
    model.draw = lambda _: torch.tensor([[False, True, False]])
    first = model.examples(torch.tensor([[3, 7, 1]]), VECTORS).states
    second = model.examples(torch.tensor([[3, 7, 2]]), VECTORS).states
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("bias", [True, False])
def test_bert4rec_encode_is_the_full_pass_with_a_hidden_item_at_the_end(bias):
    torch.manual_seed(0)
    settings = SETTINGS["bert4rec"].model_copy(update={"distance_bias": bias, "heads": 4})
    model = implementation(settings)(settings).double().eval()
    vectors = VECTORS.double()
    histories = torch.nn.functional.pad(HISTORIES, (0, 1))
    rows = torch.arange(3)
    histories[rows, LENGTHS] = 9  # any item: it is hidden
    hidden = torch.zeros_like(histories, dtype=torch.bool)
    hidden[rows, LENGTHS] = True
    model.draw = lambda _: hidden
    full = model.examples(histories, vectors).states
    torch.testing.assert_close(model.encode(HISTORIES, LENGTHS, vectors), full, atol=1e-12, rtol=1e-12)


def test_the_distance_bias_falls_with_distance_and_differs_by_head():
    model = implementation(SETTINGS["bert4rec"])(SETTINGS["bert4rec"])
    visible = torch.tensor([[True, True, True, False]])
    bias = model._attention(visible, torch.tensor([[0, 2]]))
    assert bias.shape == (1, 2, 2, 4)
    assert bias[0, 0, 1].tolist() == [-2.0, -1.0, 0.0, -torch.inf]
    assert bias[0, 1, 0].tolist() == [0.0, -0.25, -0.5, -torch.inf]


def test_a_batch_without_rows_teaches_nothing_and_breaks_nothing(backbone):
    vectors = VECTORS.clone().requires_grad_()
    examples = backbone.examples(torch.zeros(0, 2, dtype=torch.long), vectors)
    assert len(examples.targets) == 0
    examples.states.sum().backward()
    assert vectors.grad is None or vectors.grad.abs().sum() == 0
