import pytest
import torch
from torch import nn

import moebius as mb
from moebius.kit.errors import ArgumentError
from moebius.layers.soft_moe import SoftMoE


def random_rows(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def make_layer(experts=3, slots=2, dim=4, **options):
    torch.manual_seed(0)
    networks = [nn.Sequential(nn.Linear(dim, 5), nn.Tanh(), nn.Linear(5, dim)) for _ in range(experts)]
    moe = SoftMoE(dim, networks, slots, **options).double()
    with torch.no_grad():
        for parameter in moe.parameters():
            parameter.mul_(2)
    return moe


def run_algorithm_1(moe, x):
    """Algorithm 1 of the paper with the normalisation of section 2.3, one sequence and one slot at a time."""
    outputs = []
    for tokens in x:
        phi = moe.phi.flatten(1)
        queries, keys = tokens, phi
        if moe.scale is not None:
            queries = tokens / tokens.norm(dim=1, keepdim=True)
            keys = moe.scale * phi / phi.norm(dim=0, keepdim=True)
        exponentials = (queries @ keys).exp()
        dispatch = exponentials / exponentials.sum(0, keepdim=True)
        combine = exponentials / exponentials.sum(1, keepdim=True)
        slots = moe.phi.shape[2]
        slot_outputs = [moe.experts[slot // slots](dispatch[:, slot] @ tokens) for slot in range(phi.shape[1])]
        outputs.append(combine @ torch.stack(slot_outputs))
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
    moe, x = make_layer(normalise=normalise), random_rows(2, 5, 4)
    outputs, expected = moe(x), run_algorithm_1(moe, x)
    torch.testing.assert_close(outputs, expected)
    parameters = list(moe.parameters())
    gradients = [torch.autograd.grad(y.square().sum(), parameters) for y in (outputs, expected)]
    torch.testing.assert_close(*gradients)


def test_permuting_tokens_permutes_outputs():
    moe, x, order = make_layer(), random_rows(2, 5, 4), torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(moe(x[:, order]), moe(x)[:, order])


def test_sequences_know_nothing_of_each_other():
    moe, x = make_layer(), random_rows(3, 5, 4)
    torch.testing.assert_close(moe(x)[1:2], moe(x[1:2]))


def test_padding_is_as_if_it_were_not_there():
    moe, x = make_layer(), random_rows(2, 5, 4)
    mask = torch.tensor([[True, False, True, True, False], [True] * 5])
    x[~mask] = torch.nan
    y = moe(x, mask)
    torch.testing.assert_close(y[:1, mask[0]], moe(x[:1, mask[0]]))
    torch.testing.assert_close(y[1:], moe(x[1:]))
    assert not y[0, ~mask[0]].any()


def test_a_sequence_of_padding_has_finite_gradients():
    moe, x = make_layer(), random_rows(2, 3, 4).requires_grad_()
    y = moe(x, torch.tensor([[False] * 3, [True] * 3]))
    y.square().sum().backward()
    assert not y[0].any()
    assert not x.grad[0].any()
    assert all(value.grad.isfinite().all() for value in (x, *moe.parameters()))


def test_the_length_of_tokens_has_no_effect_where_lengths_are_normalised():
    x = random_rows(2, 5, 4)
    has_equal_weights = []
    for moe in (make_layer(), make_layer(normalise=False)):
        with mb.record(moe) as log:
            moe(x)
            moe(9 * x)
        has_equal_weights.append(torch.allclose(log[""][0].weights, log[""][1].weights))
    assert has_equal_weights == [True, False]


def test_a_token_of_zeros_has_finite_gradients():
    moe, x = make_layer(), torch.zeros(1, 3, 4, dtype=torch.float64, requires_grad=True)
    moe(x).square().sum().backward()
    assert all(value.grad.isfinite().all() for value in (x, *moe.parameters()))


def test_the_recorded_weights_are_those_of_the_experts_and_explain_the_output():
    moe, x = make_layer(), random_rows(2, 5, 4)
    with mb.record(moe, outputs=True) as log:
        y = moe(x)
    (routing,) = log[""]
    assert routing.selection is None
    logits = torch.einsum(
        "bsd,dep->bsep", nn.functional.normalize(x, dim=-1), moe.scale * nn.functional.normalize(moe.phi, dim=0)
    )
    expert_weights = logits.flatten(2).softmax(-1).view(10, 3, 2).sum(-1)
    torch.testing.assert_close(routing.weights, expert_weights)
    torch.testing.assert_close(routing.probs, expert_weights)
    weighted_sum = torch.einsum("te,teo->to", routing.weights, routing.outputs)
    torch.testing.assert_close(weighted_sum.view(2, 5, 4), y)


def test_inside_a_mixture_its_rows_are_those_of_the_outermost_batch():
    class MeanGate(nn.Module):
        def forward(self, x):
            return torch.stack([x.mean((1, 2)), -x.mean((1, 2))], -1)

    x, inner = random_rows(4, 3, 4), make_layer()
    moe = mb.Mixture(MeanGate(), [inner, nn.Identity()], mb.routers.Argmax())
    y, log = mb.call(moe, x)
    rows = (x.mean((1, 2)) > 0).nonzero().squeeze(1)
    assert 0 < len(rows) < 4
    assert log["experts.0"][0].rows.tolist() == rows.repeat_interleave(3).tolist()
    torch.testing.assert_close(y[rows], inner(x[rows]))


def test_gradients_are_those_of_finite_differences():
    moe, x = make_layer(2, 1), random_rows(1, 3, 4).requires_grad_()
    names = [name for name, _ in moe.named_parameters()]

    def run(x, *values):
        return torch.func.functional_call(moe, dict(zip(names, values, strict=True)), (x,))

    values = [parameter.detach().requires_grad_() for parameter in moe.parameters()]
    assert torch.autograd.gradcheck(run, [x, *values])


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (1, 1, 4)])
def test_no_sequences_no_tokens_and_one(shape):
    assert make_layer()(random_rows(*shape)).shape == shape


def test_half_precision_weighs_in_single():
    moe, x = make_layer(), random_rows(2, 5, 4)
    expected = moe(x)
    rounded = moe.bfloat16()(x.bfloat16())
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.double(), expected, rtol=0.05, atol=0.05)


def test_what_it_cannot_be_made_of():
    with pytest.raises(ArgumentError, match="experts: needs at least one expert") as caught:
        SoftMoE(4, [])
    assert caught.value.fix == "experts=[nn.Linear(4, 4)]"
    for name in ("dim", "slots"):
        with pytest.raises(ArgumentError, match=f"{name}: needs a whole number"):
            SoftMoE(**{"dim": 4, "experts": [nn.Identity()], "slots": 1, name: 0})
    with pytest.raises(ArgumentError, match=r"dim: the tokens, of shape \(2, 5, 3\), have another width, got 4"):
        make_layer()(random_rows(2, 5, 3))
