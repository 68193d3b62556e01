"""What stands in an expert is what runs: replaced, wrapped, hooked and parametrised layers, beside the sum by hand."""

from functools import partial
from types import MethodType

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune

import moebius as mb
from moebius.kit.errors import ArgumentError

X = torch.randn(64, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
EXPERTS = {
    "linear": lambda: mb.experts.Linear(8, 8),
    "mlp": lambda: mb.experts.MLP(8, 8, hidden=[6]),
    "ffn": lambda: mb.experts.FFN(8, 6),
    "sequential": lambda: nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 8)),
    "bare": lambda: nn.Linear(8, 8),
}
ROUTERS = {"soft": mb.routers.Soft(), "top2": mb.routers.TopK(2), "top1": mb.routers.TopK(1)}


class Clipped(nn.Linear):
    def forward(self, input):
        return super().forward(input).clamp(-0.1, 0.1)


class LoRALinear(nn.Linear):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.down, self.up = nn.Parameter(torch.randn(2, sizes[0])), nn.Parameter(torch.randn(sizes[1], 2))

    def forward(self, input):
        return super().forward(input) + input @ self.down.T @ self.up.T


class LoRA(nn.Module):
    """A wrapper that shows the weight and the bias of what it wraps."""

    def __init__(self, layer):
        super().__init__()
        self.base_layer = layer
        self.down, self.up = nn.Linear(layer.in_features, 2, bias=False), nn.Linear(2, layer.out_features, bias=False)

    weight = property(lambda self: self.base_layer.weight)
    bias = property(lambda self: self.base_layer.bias)

    def forward(self, x):
        return self.base_layer(x) + self.up(self.down(x))


class Tripled(nn.Module):
    def forward(self, weight):
        return 3 * weight


class Doubling(torch.Tensor):
    """A weight that says itself what a dense layer is."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        y = super().__torch_function__(function, types, args, kwargs or {})
        return 2 * y.as_subclass(torch.Tensor) if function is F.linear else y


def other_class(kind, layer):
    new = kind(layer.in_features, layer.out_features)
    new.weight, new.bias = layer.weight, layer.bias
    return new


def hooked(register, hook, layer):
    getattr(layer, register)(hook)
    return layer


def own_forward(layer):
    layer.forward = MethodType(lambda self, x: F.linear(x, self.weight, self.bias).tanh(), layer)
    return layer


def subclassed_weight(layer):
    layer.weight = nn.Parameter(layer.weight.detach().as_subclass(Doubling))
    return layer


def parametrised(layer):
    parametrize.register_parametrization(layer, "weight", Tripled())
    return layer


# What takes the place of each nn.Linear.
LAYERS = {
    "subclass": partial(other_class, Clipped),
    "LoRA subclass": partial(other_class, LoRALinear),
    "LoRA wrapper": LoRA,
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "parametrised": parametrised,
    "old weight_norm": nn.utils.weight_norm,
    "pruned": partial(prune.ln_structured, name="weight", amount=0.5, n=2, dim=0),
    "forward hook": partial(hooked, "register_forward_hook", lambda layer, args, y: y.square()),
    "forward pre-hook": partial(hooked, "register_forward_pre_hook", lambda layer, args: (args[0] / 2,)),
    "backward hook": partial(hooked, "register_full_backward_hook", lambda layer, into, out: (into[0] * 2,)),
    "backward pre-hook": partial(hooked, "register_full_backward_pre_hook", lambda layer, out: (out[0] * 2,)),
    "own forward": own_forward,
    "compiled": lambda layer: torch.compile(other_class(Clipped, layer), backend="eager"),
    "tensor subclass": subclassed_weight,
}
# What a stack holds as well as a list; the others each have a hook, a class, a tensor or a function of their own.
STACKED = ("subclass", "LoRA subclass", "LoRA wrapper")
# What happens to something else than an nn.Linear.
PARTS = {
    "hook on the expert": lambda expert: expert.register_forward_hook(lambda part, args, y: y + 1),
    "activation's forward": lambda expert: setattr(expert[1], "forward", torch.sin),
    "network's forward": lambda expert: setattr(expert.network, "forward", torch.sin),
    "activation's hook": lambda expert: expert[1].register_forward_hook(lambda part, args, y: -y),
}


def replaced(module, replacement):
    for name, part in list(module.named_children()):
        if type(part) is nn.Linear:
            setattr(module, name, replacement(part))
        else:
            replaced(part, replacement)
    return replacement(module) if type(module) is nn.Linear else module


def pool_of(experts, stack, refusable):
    """The list or the stack of them; None where that is refused, with the list as the fix, and may be."""
    try:
        return mb.Stack(experts) if stack else experts
    except ArgumentError as error:
        if refusable and "list(experts)" in (error.fix or ""):
            return None
        raise


def agrees_with_the_sum_by_hand(experts, router, stack, refusable=True):
    experts = [expert.double().eval() for expert in experts]
    pool = pool_of(experts, stack, refusable)
    if pool is None:
        return
    moe = mb.Mixture(mb.gates.Linear(8, 4).double(), pool, router).eval()
    for rows in (64, 2, 1):
        x = X[:rows].clone().requires_grad_()
        with mb.record(moe) as log:
            y = moe(x)
        weights = log[""][-1].weights
        expected = torch.stack([weights[:, e, None] * expert(x) for e, expert in enumerate(experts)]).sum(0)
        torch.testing.assert_close(y, expected)
        torch.testing.assert_close(gradients(y, x, moe.gate, moe.experts), gradients(expected, x, moe.gate, experts))


def gradients(y, x, gate, experts):
    """Of the rows, the gate's parameters, and each expert's."""
    names = [name for name, _ in experts[0].named_parameters()]
    if isinstance(experts, mb.Stack):
        parameters = [dict(experts.named_parameters())[name.replace(".", "_")] for name in names]
    else:
        parameters = [parameter for expert in experts for parameter in expert.parameters()]
    leaves = [x, *gate.parameters(), *parameters]
    found = torch.autograd.grad(y.square().sum(), leaves, retain_graph=True, materialize_grads=True)
    shared, own = list(found[:3]), [gradient.as_subclass(torch.Tensor) for gradient in found[3:]]
    if isinstance(experts, mb.Stack):
        own = [gradient[number] for number in range(len(experts)) for gradient in own]
    return shared + own


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm`:FutureWarning")
@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"
)  # of dynamo, itself
@pytest.mark.parametrize("stack", [False, True], ids=["list", "stack"])
@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("expert", EXPERTS)
@pytest.mark.parametrize("layer", LAYERS)
def test_a_replaced_layer(layer, expert, router, stack):
    torch.manual_seed(0)
    experts = [replaced(EXPERTS[expert](), LAYERS[layer]) for _ in range(4)]
    agrees_with_the_sum_by_hand(experts, ROUTERS[router], stack, layer not in STACKED)


@pytest.mark.parametrize("stack", [False, True], ids=["list", "stack"])
@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize(
    ("part", "expert"),
    [
        ("hook on the expert", "ffn"),
        ("hook on the expert", "bare"),
        ("activation's forward", "sequential"),
        ("activation's hook", "sequential"),
        ("network's forward", "mlp"),
    ],
)
def test_a_part_that_is_no_layer(part, expert, router, stack):
    torch.manual_seed(0)
    experts = [EXPERTS[expert]() for _ in range(4)]
    for one in experts:
        PARTS[part](one)
    agrees_with_the_sum_by_hand(experts, ROUTERS[router], stack)


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm`:FutureWarning")
@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("layer", LAYERS)
def test_one_expert_is_replaced(layer, router):
    """A product of the others, which are equal, must not take it in; a stack cannot hold it."""
    torch.manual_seed(0)
    experts = [EXPERTS["ffn"]() for _ in range(4)]
    replaced(experts[2], LAYERS[layer])
    agrees_with_the_sum_by_hand(experts, ROUTERS[router], stack=False)
    with pytest.raises(ArgumentError, match=r"fix: mb\.Mixture\(gate, list\(experts\)\)"):
        mb.Stack(experts)
