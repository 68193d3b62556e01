import pytest
import torch
from torch import nn

import moebius as mb
from moebius.kit.errors import ArgumentError
from moebius.layers.soft_moe import SoftMoE


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def layer(experts=3, slots=2, dim=4, **options):
    torch.manual_seed(0)
    made = [nn.Sequential(nn.Linear(dim, 5), nn.Tanh(), nn.Linear(5, dim)) for _ in range(experts)]
    moe = SoftMoE(dim, made, slots, **options).double()
    with torch.no_grad():
        for parameter in moe.parameters():
            parameter.mul_(2)
    return moe


def as_written(moe, x):
    """Algorithm 1 of the paper with the normalisation of section 2.3, one sequence and one slot at a time."""
    outputs = []
    for tokens in x:
        phi = moe.phi.flatten(1)
        unit = [tokens, phi]
        if moe.scale is not None:
            unit = [tokens / tokens.norm(dim=1, keepdim=True), moe.scale * phi / phi.norm(dim=0, keepdim=True)]
        logits = (unit[0] @ unit[1]).exp()
        dispatch = logits / logits.sum(0, keepdim=True)
        combine = logits / logits.sum(1, keepdim=True)
        slots = moe.phi.shape[2]
        ys = [moe.experts[i // slots](dispatch[:, i] @ tokens) for i in range(phi.shape[1])]
        outputs.append(combine @ torch.stack(ys))
    return torch.stack(outputs)


def test_worked_with_one_expert_and_one_slot():
    # Logits 0 and ln 3: the slot is (1·4 + 3·8)/4 = 7, the expert doubles it, and each token gets all of it.
    moe = SoftMoE(1, [nn.Linear(1, 1, bias=False)], normalise=False)
    with torch.no_grad():
        moe.phi.fill_(torch.tensor(3.0).log() / 4)
        moe.experts[0].weight.fill_(2.0)
    y = moe(torch.tensor([[[4.0], [8.0]]]))
    torch.testing.assert_close(y, torch.tensor([[[14.0], [14.0]]]))


@pytest.mark.parametrize("normalise", [True, False])
def test_it_is_the_papers_algorithm(normalise):
    moe, x = layer(normalise=normalise), random(2, 5, 4)
    found, written = moe(x), as_written(moe, x)
    torch.testing.assert_close(found, written)
    parameters = list(moe.parameters())
    gradients = [torch.autograd.grad(y.square().sum(), parameters) for y in (found, written)]
    torch.testing.assert_close(*gradients)


def test_permuting_tokens_permutes_outputs():
    moe, x, order = layer(), random(2, 5, 4), torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(moe(x[:, order]), moe(x)[:, order])


def test_sequences_know_nothing_of_each_other():
    moe, x = layer(), random(3, 5, 4)
    torch.testing.assert_close(moe(x)[1:2], moe(x[1:2]))


def test_padding_is_as_if_it_were_not_there():
    moe, x = layer(), random(2, 5, 4)
    mask = torch.tensor([[True, False, True, True, False], [True] * 5])
    x[~mask] = torch.nan
    y = moe(x, mask)
    torch.testing.assert_close(y[:1, mask[0]], moe(x[:1, mask[0]]))
    torch.testing.assert_close(y[1:], moe(x[1:]))
    assert not y[0, ~mask[0]].any()


def test_a_sequence_of_padding_has_finite_gradients():
    moe, x = layer(), random(2, 3, 4).requires_grad_()
    y = moe(x, torch.tensor([[False] * 3, [True] * 3]))
    y.square().sum().backward()
    assert not y[0].any()
    assert not x.grad[0].any()
    assert all(value.grad.isfinite().all() for value in (x, *moe.parameters()))


def test_how_long_tokens_are_decides_nothing_where_lengths_are_normalised():
    x = random(2, 5, 4)
    same = []
    for moe in (layer(), layer(normalise=False)):
        with mb.record(moe) as log:
            moe(x)
            moe(9 * x)
        same.append(torch.allclose(log[""][0].weights, log[""][1].weights))
    assert same == [True, False]


def test_a_token_of_zeros_has_finite_gradients():
    moe, x = layer(), torch.zeros(1, 3, 4, dtype=torch.float64, requires_grad=True)
    moe(x).square().sum().backward()
    assert all(value.grad.isfinite().all() for value in (x, *moe.parameters()))


def test_the_recorded_weights_are_those_of_the_experts_and_explain_the_output():
    moe, x = layer(), random(2, 5, 4)
    with mb.record(moe, outputs=True) as log:
        y = moe(x)
    (routing,) = log[""]
    assert routing.selection is None
    logits = torch.einsum(
        "bsd,dep->bsep", nn.functional.normalize(x, dim=-1), moe.scale * nn.functional.normalize(moe.phi, dim=0)
    )
    by_expert = logits.flatten(2).softmax(-1).view(10, 3, 2).sum(-1)
    torch.testing.assert_close(routing.weights, by_expert)
    torch.testing.assert_close(routing.probs, by_expert)
    explained = torch.einsum("te,teo->to", routing.weights, routing.outputs)
    torch.testing.assert_close(explained.view(2, 5, 4), y)


def test_inside_a_mixture_its_rows_are_those_of_the_outermost_batch():
    class Whole(nn.Module):
        def forward(self, x):
            return torch.stack([x.mean((1, 2)), -x.mean((1, 2))], -1)

    x, inner = random(4, 3, 4), layer()
    moe = mb.Mixture(Whole(), [inner, nn.Identity()], mb.routers.Argmax())
    y, log = mb.call(moe, x)
    rows = (x.mean((1, 2)) > 0).nonzero().squeeze(1)
    assert 0 < len(rows) < 4
    assert log["experts.0"][0].rows.tolist() == rows.repeat_interleave(3).tolist()
    torch.testing.assert_close(y[rows], inner(x[rows]))


def test_gradients_are_those_of_finite_differences():
    moe, x = layer(2, 1), random(1, 3, 4).requires_grad_()
    names = [name for name, _ in moe.named_parameters()]

    def changed(x, *values):
        return torch.func.functional_call(moe, dict(zip(names, values, strict=True)), (x,))

    values = [parameter.detach().requires_grad_() for parameter in moe.parameters()]
    assert torch.autograd.gradcheck(changed, [x, *values])


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (1, 1, 4)])
def test_no_sequences_no_tokens_and_one(shape):
    assert layer()(random(*shape)).shape == shape


def test_half_precision_weighs_in_single():
    moe, x = layer(), random(2, 5, 4)
    exact = moe(x)
    rounded = moe.bfloat16()(x.bfloat16())
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.double(), exact, rtol=0.05, atol=0.05)


def test_what_it_cannot_be_made_of():
    with pytest.raises(ArgumentError, match="experts: needs at least one expert"):
        SoftMoE(4, [])
    for name in ("dim", "slots"):
        with pytest.raises(ArgumentError, match=f"{name}: needs a whole number"):
            SoftMoE(**{"dim": 4, "experts": [nn.Identity()], "slots": 1, name: 0})
    with pytest.raises(ArgumentError, match=r"dim: the tokens, of shape \(2, 5, 3\), have another width, got 4"):
        layer()(random(2, 5, 3))
