import pytest
import torch

from tessera.settings.backbones.bert4rec import BERT4RecSettings
from tessera.settings.backbones.filter import FilterSettings
from tessera.settings.backbones.gru4rec import GRU4RecSettings
from tessera.settings.backbones.hstu import HSTUSettings
from tessera.settings.backbones.mamba import MambaSettings
from tessera.settings.backbones.sasrec import SASRecSettings
from tessera.settings.kinds import implementation, tags

SETTINGS = {
    "sasrec": SASRecSettings(dim=16, max_length=8, dropout=0.0),
    "gru4rec": GRU4RecSettings(dim=16, max_length=8, dropout=0.0),
    "bert4rec": BERT4RecSettings(dim=16, max_length=8, dropout=0.0),
    "mamba": MambaSettings(dim=16, max_length=8, dropout=0.0),
    "filter": FilterSettings(dim=16, max_length=8, dropout=0.0),
    "hstu": HSTUSettings(dim=16, max_length=8, dropout=0.0),
}
CAUSAL = sorted(kind for kind, settings in SETTINGS.items() if settings.causal_states)


@pytest.fixture(params=sorted(SETTINGS))
def backbone(request):
    torch.manual_seed(0)
    return implementation(SETTINGS[request.param])(SETTINGS[request.param]).eval()


VECTORS = torch.randn(21, 16, generator=torch.Generator().manual_seed(5))
HISTORIES = torch.tensor([[3, 7, 1, 0, 0], [4, 4, 9, 20, 2], [5, 0, 0, 0, 0]])
LENGTHS = torch.tensor([3, 5, 1])


def test_no_backbone_is_left_out():
    assert set(SETTINGS) == set(tags("backbones"))


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


@pytest.mark.parametrize("kind", CAUSAL)
def test_a_causal_state_does_not_see_later_items(kind):
    """To the bit: what comes later is not small in what was before, it is not there."""
    torch.manual_seed(0)
    model = implementation(SETTINGS[kind])(SETTINGS[kind]).eval()
    inputs = torch.randn(1, 6, 16)
    for change in (torch.randn(1, 2, 16), torch.full((1, 2, 16), 1e4)):
        changed = torch.cat([inputs[:, :4], change], 1)
        before, after = (model.hidden(x, torch.tensor([6])) for x in (inputs, changed))
        assert torch.equal(before[:, :4], after[:, :4])
        assert not torch.allclose(before[:, 4:], after[:, 4:])


@pytest.mark.parametrize("kind", CAUSAL)
def test_a_window_predicts_as_every_prefix_alone(kind):
    """Training at all positions at once is what scoring does, one prefix after the other."""
    torch.manual_seed(0)
    model = implementation(SETTINGS[kind])(SETTINGS[kind]).double().eval()
    vectors = VECTORS.double()
    history = torch.tensor([[4, 4, 9, 20, 2, 17, 1, 3, 8]])
    examples = model.examples(history, vectors)
    for end, state in enumerate(examples.states, 1):
        alone = model.encode(history[:, :end], torch.tensor([end]), vectors)
        torch.testing.assert_close(alone[0], state, atol=1e-12, rtol=1e-10)
    assert len(examples.states) == 8


@pytest.mark.parametrize("kind", ["sasrec", "filter"])
def test_encode_is_the_last_state_of_the_full_pass(kind):
    torch.manual_seed(0)
    model = implementation(SETTINGS[kind])(SETTINGS[kind]).double().eval()
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
    settings = SETTINGS["bert4rec"].model_copy(update={"last_only_probability": 0.0})
    model = implementation(settings)(settings).train()
    shares = []
    for _ in range(200):
        hidden = model.draw(HISTORIES) == 1
        assert hidden.any(1).all()
        assert not (hidden & (HISTORIES == 0)).any()
        shares.append(hidden[1].float().mean().item())
    # 0.3 of five items, or one where none was drawn
    assert sum(shares) / 200 == pytest.approx(0.3 + 0.7**5 / 5, abs=0.05)


def test_a_beginning_of_random_length_hides_its_last_item_alone():
    """Every item but the first is a target of a beginning, and what comes after it changes nothing."""
    torch.manual_seed(0)
    settings = SETTINGS["bert4rec"].model_copy(update={"last_only_probability": 1.0})
    model = implementation(settings)(settings).double().eval()
    targets = set()
    for _ in range(60):
        drawn = model.draw(HISTORIES)
        assert (drawn == 1).sum(1).tolist() == [1, 1, 1]
        ends = (drawn == 1).long().argmax(1)
        assert ends[2] == 0  # nothing else is there
        assert bool((ends[:2] > 0).all())
        assert torch.equal(drawn == 2, torch.arange(5) > ends[:, None])
        targets |= {(0, int(ends[0])), (1, int(ends[1]))}
    assert targets == {(0, 1), (0, 2), (1, 1), (1, 2), (1, 3), (1, 4)}
    vectors = VECTORS.double()
    states = model.examples(
        HISTORIES, vectors, torch.tensor([[0, 0, 1, 2, 2], [0, 0, 1, 2, 2], [1, 2, 2, 2, 2]])
    ).states
    for row, state in enumerate(states[:2]):
        alone = model.encode(HISTORIES[row : row + 1, :2], torch.tensor([2]), vectors)
        torch.testing.assert_close(alone[0], state, atol=1e-12, rtol=1e-12)


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


def test_the_distance_bias_falls_with_distance_and_heads_have_a_side_each():
    settings = SETTINGS["bert4rec"].model_copy(update={"heads": 4})
    model = implementation(settings)(settings)
    visible = torch.tensor([[True, True, True, False]])
    bias = model._attention(visible, torch.tensor([[0, 2]]))
    assert bias.shape == (1, 4, 2, 4)
    assert bias[0, 0].tolist() == [[0.0, -3.0, -4.0, -torch.inf], [-2.0, -1.0, 0.0, -torch.inf]]
    assert bias[0, 1].tolist() == [[0.0, -1.0, -2.0, -torch.inf], [-4.0, -3.0, 0.0, -torch.inf]]
    assert bias[0, 2, 1].tolist() == [-0.5, -0.25, 0.0, -torch.inf]


@pytest.mark.parametrize("bias", [True, False])
def test_nobody_looks_at_a_hidden_item_but_itself_where_nothing_else_is_there(bias):
    settings = SETTINGS["bert4rec"].model_copy(update={"distance_bias": bias})
    model = implementation(settings)(settings)
    seen = model._attention(torch.tensor([[True, False, True]]), torch.tensor([[0, 1]]))
    assert bool((seen[:, :, 0, 1] == -torch.inf).all())
    weights = torch.softmax(seen[:, :, 1], -1)
    assert weights[..., 1].max().item() < 1e-3
    alone = torch.softmax(model._attention(torch.tensor([[False, False]]), torch.tensor([[0]])), -1)
    assert bool((alone[..., 0] == 1).all())


def test_a_batch_without_rows_teaches_nothing_and_breaks_nothing(backbone):
    vectors = VECTORS.clone().requires_grad_()
    examples = backbone.examples(torch.zeros(0, 2, dtype=torch.long), vectors)
    assert len(examples.targets) == 0
    examples.states.sum().backward()
    assert vectors.grad is None or vectors.grad.abs().sum() == 0


def test_prefixes_without_rows_break_nothing(backbone):
    vectors = VECTORS.clone().requires_grad_()
    states = backbone.encode(torch.zeros(0, 2, dtype=torch.long), torch.zeros(0, dtype=torch.long), vectors)
    assert states.shape == (0, 16)
    states.sum().backward()
