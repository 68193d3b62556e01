"""A sparse layer in place of a transformer's block."""

import warnings

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.kit.errors import ArgumentError
from moebius.layers.sparse_ffn import SparseFFN

TOKENS = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def transformers():
    """The library, whose import raises warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("transformers", reason="transformers is not installed: pip install -e '.[dev]'")


def make_layer(**options):
    torch.manual_seed(0)
    return SparseFFN(**{"dim": 8, "hidden": 6, "experts": 4, "k": 2, **options})


def test_worked():
    """The experts are x ↦ 1, 10, 100 relu(x)², the gate's scores are x, 0, −x; all tokens share x ↦ relu(x)².

    x = 2: softmax(2, 0) = 0.88080, 0.11920 of 4 and 40, and 4. x = −1: all experts give 0.
    """
    moe = SparseFFN(dim=1, hidden=1, experts=3, k=2, activation="relu2", bias=False, shared=1)
    experts = moe.mixture.experts
    with torch.no_grad():
        moe.mixture.gate.linear.weight.copy_(torch.tensor([[1.0], [0.0], [-1.0]]))
        experts.inner_weight.fill_(1)
        experts.outer_weight.copy_(torch.tensor([1.0, 10.0, 100.0]).view(3, 1, 1))
        moe.block.inner.weight.fill_(1)
        moe.block.outer.weight.fill_(1)
    y = moe(torch.tensor([[2.0], [-1.0]]))
    torch.testing.assert_close(y, torch.tensor([[0.88080 * 4 + 0.11920 * 40 + 4], [0.0]]), rtol=1e-4, atol=0)


@pytest.mark.parametrize("activation", ["gelu", "relu2", "swiglu", "geglu"])
def test_with_all_experts_it_is_the_dense_mixture(activation):
    moe = make_layer(k=4, activation=activation).double()
    x = TOKENS.double()
    weights = moe.mixture.gate(x).softmax(-1)
    dense = sum(weights[..., number, None] * expert(x) for number, expert in enumerate(moe.mixture.experts))
    torch.testing.assert_close(moe(x), dense)


def test_one_expert_for_all_tokens_is_a_dense_block():
    moe = make_layer(experts=1, k=1, activation="geglu")
    torch.testing.assert_close(moe(TOKENS), moe.mixture.experts[0](TOKENS))


@pytest.mark.parametrize("shared", [0, 2])
def test_gradients_are_those_of_finite_differences(shared):
    moe = make_layer(dim=3, hidden=2, experts=3, activation="swiglu", shared=shared).double()
    names, values = zip(*moe.named_parameters(), strict=True)

    def run(x, *values):
        return torch.func.functional_call(moe, dict(zip(names, values, strict=True)), (x,))

    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, (x, *values))


@pytest.mark.parametrize("execution", ["auto", "loop", "sorted", "gather", "dense"])
def test_tokens_of_sequences_are_rows(execution):
    moe = make_layer(shared=1, execution=execution)
    assert moe.execution == execution
    y = moe(TOKENS)
    assert y.shape == TOKENS.shape
    torch.testing.assert_close(y.flatten(0, 1), moe(TOKENS.flatten(0, 1)))
    torch.testing.assert_close(y, make_layer(shared=1, execution="loop")(TOKENS))


def test_what_it_did_is_recorded():
    moe = make_layer(shared=1)
    with mb.record(moe, outputs=True) as log:
        y = moe(TOKENS)
    (routing,) = log["mixture"]
    assert list(log) == ["mixture"]
    assert routing.weights.shape == (10, 4)
    assert routing.outputs.shape == (10, 4, 8)
    assert ((routing.weights > 0).sum(1) == 2).all()
    weighted_sum = (routing.weights.unsqueeze(-1) * routing.outputs).sum(1).view_as(TOKENS)
    torch.testing.assert_close(y, weighted_sum + moe.block(TOKENS))


def test_as_a_block_of_a_network_it_trains_and_saves_what_it_trains():
    network = nn.Sequential(nn.LayerNorm(8), make_layer(bias=False, shared=1))
    assert [name for name in network.state_dict() if ".experts." in name] == [
        f"1.mixture.experts.{part}_weight" for part in ("inner", "outer")
    ]
    network(TOKENS).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_a_router_of_ones_own():
    moe = make_layer(router=mb.routers.Switch(capacity=1.0), k=3)
    assert moe.router is moe.mixture.router
    assert moe.k == 3
    with mb.record(moe) as log:
        moe(TOKENS)
    assert ((log["mixture"][0].weights > 0).sum(1) <= 1).all()
    default = make_layer()
    assert default.router is None
    default.mixture.router.k = 1
    assert default.k == 1
    default.mixture.router = mb.routers.Argmax()
    assert default.router is default.mixture.router


def copy_parameters(ours, gate, gate_up, down):
    with torch.no_grad():
        ours.mixture.gate.linear.weight.copy_(gate)
        ours.mixture.experts.inner_weight.copy_(gate_up)
        ours.mixture.experts.outer_weight.copy_(down)


def assert_blocks_agree(theirs, ours):
    results = []
    for block in (theirs, ours):
        x = TOKENS.clone().requires_grad_()
        y = block(x)
        y = y[0] if isinstance(y, tuple) else y
        y.square().sum().backward()
        results.append((y.detach(), x.grad))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)
    stack = ours.mixture.experts
    torch.testing.assert_close(stack.inner_weight.grad, theirs.experts.gate_up_proj.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(stack.outer_weight.grad, theirs.experts.down_proj.grad, rtol=1e-4, atol=1e-4)


def fill_parameters(block):
    torch.manual_seed(0)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    return block.eval()


@pytest.mark.parametrize("execution", ["auto", "loop", "gather"])
def test_a_mixtral_block(transformers, execution):
    from transformers.models.mixtral.modeling_mixtral import MixtralConfig, MixtralSparseMoeBlock

    config = MixtralConfig(
        hidden_size=8, intermediate_size=6, num_local_experts=4, num_experts_per_tok=2, hidden_act="silu"
    )
    block = fill_parameters(MixtralSparseMoeBlock(config))
    ours = make_layer(activation="swiglu", bias=False, execution=execution)
    copy_parameters(ours, block.gate.weight, block.experts.gate_up_proj, block.experts.down_proj)
    assert_blocks_agree(block, ours)


def test_a_deepseek_block_with_shared_experts(transformers):
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Config, DeepseekV3MoE

    config = DeepseekV3Config(
        hidden_size=8,
        moe_intermediate_size=6,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        n_shared_experts=2,
        norm_topk_prob=True,
        routed_scaling_factor=1.0,
        hidden_act="silu",
    )
    block = fill_parameters(DeepseekV3MoE(config))
    router = mb.routers.TopK(2, "sigmoid", bias_rate=0.001, experts=4)
    ours = make_layer(activation="swiglu", bias=False, shared=2, router=router).eval()
    bias = torch.linspace(-0.3, 0.3, 4)
    block.gate.e_score_correction_bias.copy_(bias)
    router.bias.copy_(bias)
    copy_parameters(ours, block.gate.weight, block.experts.gate_up_proj, block.experts.down_proj)
    shared = block.shared_experts
    with torch.no_grad():
        ours.block.inner.weight.copy_(torch.cat([shared.gate_proj.weight, shared.up_proj.weight]))
        ours.block.outer.weight.copy_(shared.down_proj.weight)
    assert_blocks_agree(block, ours)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 0}, "dim: needs"),
        ({"hidden": 0}, "hidden: needs"),
        ({"experts": 0}, "experts: needs"),
        ({"k": 0}, "k: needs"),
        ({"shared": -1}, "shared: needs a whole number of at least 0, got -1"),
        ({"activation": "relu"}, "activation: needs one of gelu, relu2, swiglu, geglu, got 'relu'"),
    ],
)
def test_arguments_that_cannot_be(options, message):
    with pytest.raises(ArgumentError) as caught:
        make_layer(**options)
    assert str(caught.value).startswith(message)


def test_tokens_of_another_width():
    with pytest.raises(ArgumentError, match=r"^dim: the tokens, of shape \(2, 5, 7\), have another width, got 8"):
        make_layer()(TOKENS[..., :7])
