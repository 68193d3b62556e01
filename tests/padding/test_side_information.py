"""Side information of masked rows, row numbers, and masks that do not fit."""

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.kit.errors import ArgumentError
from moebius.layers import SoftMoE, SparseFFN


class TintedExpert(nn.Module):
    """Adds the row's tint to each row."""

    def forward(self, x, *, context):
        return x + context["tint"].unsqueeze(-1)


def token_values(values, mask):
    """The values of the real tokens, each that of its sequence."""
    return values.unsqueeze(1).expand(mask.shape)[mask]


TINT, DOMAIN = torch.tensor([100.0, 200.0, 300.0], dtype=torch.float64), torch.tensor([1, 0, 1])


@pytest.mark.parametrize("execution", ["loop", "sorted", "dense"])
@pytest.mark.parametrize("router", [mb.routers.Soft(), mb.routers.TopK(1), mb.routers.TopK(2)])
def test_tokens_have_what_is_known_of_their_sequence(tokens, mask, execution, router):
    torch.manual_seed(0)
    moe = mb.Mixture(
        mb.gates.Linear(4, 2), [TintedExpert(), nn.Sequential(NestedTinted())], router, execution=execution
    ).double()
    x = torch.where(mask.unsqueeze(-1), tokens, torch.nan)
    by_context = moe(x, context={"tint": TINT}, mask=mask)
    with mb.context(tint=TINT, mask=mask):
        by_block = moe(x)
    with mb.context(tint=TINT):
        by_both = moe(x, mask=mask)
    expected = moe(tokens[mask], context={"tint": token_values(TINT, mask)})
    for y in (by_context, by_block, by_both):
        torch.testing.assert_close(y[mask], expected)
        assert not y[~mask].any()


class NestedTinted(nn.Module):
    """Passes no context on to the mixture inside."""

    def __init__(self):
        super().__init__()
        self.inside = mb.Mixture(mb.gates.Linear(4, 2), [TintedExpert(), TintedExpert()], mb.routers.TopK(1))

    def forward(self, x):
        return self.inside(x)


def test_the_gate_of_domains(tokens, mask):
    moe = mb.Mixture(mb.gates.Domain(2, 2), [nn.Linear(4, 3) for _ in range(2)], mb.routers.Argmax()).double()
    y, log = mb.call(moe, tokens, {"domain": DOMAIN, "mask": mask})
    assert log[""][0].weights.argmax(-1).tolist() == token_values(DOMAIN, mask).tolist()
    torch.testing.assert_close(y[mask], moe(tokens[mask], context={"domain": token_values(DOMAIN, mask)}))


def test_the_keys_of_the_hash_router(tokens, mask):
    moe = mb.Mixture(mb.gates.Linear(4, 5), [nn.Linear(4, 3) for _ in range(5)], mb.routers.Hash()).double()
    keys = torch.tensor([3, 4, 5])
    log = mb.call(moe, tokens, {"key": keys, "mask": mask})[1]
    expected = mb.call(moe, tokens[mask], {"key": token_values(keys, mask)})[1]
    assert torch.equal(log[""][0].weights, expected[""][0].weights)
    routing = mb.call(moe, tokens, {"key": keys, "mask": torch.tensor([False, True, True])})[1][""][0]
    assert torch.equal(routing.weights, mb.call(moe, tokens[1:], {"key": keys[1:]})[1][""][0].weights)


@pytest.mark.parametrize("masks_sequences", [False, True])
@pytest.mark.parametrize("layer", ["mixture", "ffn", "soft"])
def test_rows_are_places_in_the_flattened_batch(tokens, mask, layer, masks_sequences):
    mask = torch.tensor([True, False, True]) if masks_sequences else mask
    labels = torch.arange(100, 115).view(3, 5)
    (routing,) = next(iter(mb.call(MODELS[layer]().double(), tokens, {"mask": mask})[1].values()))
    assert labels.flatten()[routing.rows].tolist() == labels[mask].flatten().tolist()


def test_a_mask_inside_a_branch_is_of_the_rows_of_the_branch(tokens):
    """An expert that masks rows itself: their numbers are those in the outermost batch."""

    class EvenRows(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = mb.Mixture(mb.gates.Linear(4, 2), [TintedExpert(), TintedExpert()])

        def forward(self, x):
            return self.inside(x, mask=torch.arange(len(x)) % 2 == 0)

    moe = mb.Mixture(mb.gates.Domain(2, 2), [nn.Identity(), EvenRows()], mb.routers.Argmax()).double()
    x, domain = tokens.flatten(0, 1)[:6], torch.tensor([1, 0, 1, 1, 0, 1])
    tint = torch.arange(6, dtype=torch.float64)
    y, log = mb.call(moe, x, {"domain": domain, "tint": tint})
    assert log["experts.1.inside"][0].rows.tolist() == [0, 3]
    torch.testing.assert_close(y[[0, 3]], x[[0, 3]] + tint[[0, 3], None])
    assert not y[[2, 5]].any()


def test_whole_sequences_inside_a_branch_have_the_places_of_their_sequences(tokens):
    class OddRows(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = mb.Mixture(mb.gates.Linear(4, 2), [TintedExpert(), TintedExpert()])

        def forward(self, x):
            return self.inside(x, mask=torch.arange(len(x)) % 2 == 1)

    moe = mb.Mixture(mb.gates.Domain(2, 2), [nn.Identity(), OddRows()], mb.routers.Argmax()).double()
    y, log = mb.call(moe, tokens, {"domain": torch.tensor([1, 0, 1]), "tint": TINT})
    assert log["experts.1.inside"][0].rows.tolist() == [2] * 5
    torch.testing.assert_close(y[2], tokens[2] + TINT[2])
    assert not y[0].any()


def test_an_inner_mask_wins_and_none_ends_the_outer_one(tokens, mask):
    moe = mb.Mixture(mb.gates.Linear(4, 2), [nn.Linear(4, 3) for _ in range(2)]).double()
    inner_mask = ~mask
    with mb.context(mask=mask):
        torch.testing.assert_close(moe(tokens, mask=inner_mask), moe(tokens, context={"mask": inner_mask}))
        assert not moe(tokens, mask=inner_mask)[mask].any()
        with mb.context(mask=None):
            assert moe(tokens).flatten(0, 1).abs().sum(-1).all()
        with mb.context(tint=TINT):
            assert not moe(tokens)[~mask].any()


MODELS = {
    "mixture": lambda: mb.Mixture(mb.gates.Linear(4, 2), [nn.Linear(4, 4) for _ in range(2)]),
    "ffn": lambda: SparseFFN(4, 6, 2, 1),
    "soft": lambda: SoftMoE(4, [nn.Linear(4, 4)]),
    "attentive": lambda: mb.layers.AttentiveMixture(nn.Linear(4, 5), [nn.Linear(4, 6)], [nn.Linear(6, 4)], 5, 6),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", [torch.long, torch.int32, torch.uint8, torch.float32])
def test_attention_masks_of_numbers_are_refused_and_the_fix_is_right(tokens, mask, name, dtype):
    model, numbers = MODELS[name]().double(), mask.to(dtype)
    with pytest.raises(ArgumentError, match=rf"mask: needs a tensor of truth values, .*got {dtype}") as caught:
        model(tokens, mask=numbers)
    with pytest.raises(ArgumentError, match="mask: needs"), mb.context(mask=numbers):
        model(tokens)
    fixed_mask = eval(caught.value.fix.removeprefix("mask="), {"mask": numbers})
    assert torch.equal(model(tokens, mask=fixed_mask), model(tokens, mask=mask))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [(), (5, 3), (15,), (3, 5, 4), (3, 5, 1), (1, 5), (3, 1)])
def test_masks_of_another_shape_are_refused(tokens, name, shape):
    model = MODELS[name]().double()
    with pytest.raises(ArgumentError, match=r"mask: needs the .*axes") as caught:
        model(tokens, mask=torch.ones(shape, dtype=torch.bool))
    assert "mb.context(mask=None)" in caught.value.fix
    with mb.context(mask=torch.ones(shape, dtype=torch.bool)), mb.context(mask=None):
        assert model(tokens).shape == tokens.shape
