"""torch.func, forward mode and double backward, beside loops over rows and finite differences in float64."""

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

import moebius as mb

# Of torch, about what forward mode is made of.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
E, D = 4, 3
X = torch.randn(5, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
V = torch.randn(5, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
ROUTERS = {
    "soft": mb.routers.Soft,
    "top1": lambda: mb.routers.TopK(1),
    "top2": lambda: mb.routers.TopK(2),
    "argmax": mb.routers.Argmax,
    "heads": lambda: mb.routers.Heads(mb.routers.TopK(1), heads=2),
}
COMBINE = {"sum": mb.WeightedSum, "log": mb.LogMixture}
CASES = {
    "list": ["soft sum", "soft log", "top1 sum", "top2 sum", "top2 log", "argmax log", "heads sum"],
    "stack": ["soft sum", "soft log", "top1 log", "top2 sum", "argmax sum", "heads sum", "heads log"],
    "mlp stack": ["soft sum", "top1 sum", "top2 log"],
    "ffn": ["top1 sum", "top2 sum", "argmax sum", "heads sum"],
    "nested": ["soft sum", "top1 log", "top2 sum", "top2 log"],
    "conv": ["soft sum", "top2 sum"],
}
EXPERTS = {
    "list": lambda: [nn.Sequential(nn.Linear(D, 4), nn.Tanh(), nn.Linear(4, D)) for _ in range(E)],
    "stack": lambda: mb.Stack([mb.experts.FFN(D, 4, "swiglu") for _ in range(E)]),
    "mlp stack": lambda: mb.Stack([mb.experts.MLP(D, D, hidden=[4], activation="tanh") for _ in range(E)]),
    "conv": lambda: mb.Stack(
        [nn.Sequential(nn.Unflatten(1, (1, D)), nn.Conv1d(1, 1, 1), nn.Flatten()) for _ in range(E)]
    ),
    "nested": lambda: [mixture("stack", "top2"), mixture("list", "soft"), nn.Linear(D, D), nn.Linear(D, D)],
}


def mixture(pool, router, combine="sum"):
    if pool == "ffn":
        # Its gate gives one score for each expert; heads of a gate want more.
        layer = mb.layers.SparseFFN(D, 4, experts=E, k=2, shared=1, router=ROUTERS[router]())
        layer.mixture.gate = mb.gates.Linear(D, layer.mixture.router.gate_outputs(E), bias=False)
        return layer
    router = ROUTERS[router]()
    return mb.Mixture(mb.gates.Linear(D, router.gate_outputs(E)), EXPERTS[pool](), router, COMBINE[combine]())


@pytest.fixture(params=[(pool, *case.split()) for pool, cases in CASES.items() for case in cases], ids="-".join)
def model(request):
    torch.manual_seed(0)
    return mixture(*request.param).double()


def parameters(model):
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def loss(model, values, rows):
    return functional_call(model, values, (rows,)).square().sum()


def backward(model, rows):
    """The gradients that a plain backward pass gives, 0 where there is none."""
    model.zero_grad()
    model(rows).square().sum().backward()
    return {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}


def jacobian(model, rows):
    """By finite differences, (T, D, T, D): column after column."""
    step, columns = 1e-6, []
    with torch.no_grad():
        for number in range(rows.numel()):
            shift = torch.zeros(rows.numel(), dtype=rows.dtype).index_fill(0, torch.tensor(number), step).view_as(rows)
            columns.append((model(rows + shift) - model(rows - shift)) / (2 * step))
    return torch.stack(columns, -1).unflatten(-1, rows.shape)


def test_gradients_of_all_rows_and_of_each(model):
    """`func.grad` beside backward, and per-sample gradients beside a loop over rows."""
    values = parameters(model)
    torch.testing.assert_close(grad(lambda values: loss(model, values, X))(values), backward(model, X))
    each = vmap(grad(lambda values, row: loss(model, values, row.unsqueeze(0))), (None, 0))(values, X)
    loop = [backward(model, row.unsqueeze(0)) for row in X]
    torch.testing.assert_close(each, {name: torch.stack([one[name] for one in loop]) for name in values})


def test_forward_mode(model):
    expected = torch.einsum("tosd,sd->to", jacobian(model, X), V)
    with torch.no_grad():
        y = model(X)
    for rows in (5, 1):
        said, tangent = jvp(model, (X[:rows],), (V[:rows],))
        torch.testing.assert_close(said, y[:rows])
        torch.testing.assert_close(tangent, expected[:rows], rtol=1e-5, atol=1e-7)
        with forward_ad.dual_level():
            dual = forward_ad.unpack_dual(model(forward_ad.make_dual(X[:rows], V[:rows])))
        torch.testing.assert_close(dual.primal, y[:rows])
        torch.testing.assert_close(dual.tangent, expected[:rows], rtol=1e-5, atol=1e-7)


def test_forward_mode_of_the_parameters(model):
    """A step in the direction of a tangent, beside the product with the gradients."""
    values = parameters(model)
    torch.manual_seed(2)
    tangents = {name: torch.randn_like(value) for name, value in values.items()}
    _, tangent = jvp(lambda values: loss(model, values, X), (values,), (tangents,))
    gradients = backward(model, X)
    expected = sum((gradients[name] * tangents[name]).sum() for name in values)
    torch.testing.assert_close(tangent, expected)


def test_jacobians_and_pullbacks(model):
    expected = jacobian(model, X)
    for transform in (jacrev, jacfwd):
        torch.testing.assert_close(transform(model)(X), expected, rtol=1e-5, atol=1e-7)
    _, pull = vjp(model, X)
    (pulled,) = pull(V)
    torch.testing.assert_close(pulled, torch.einsum("tosd,to->sd", expected, V), rtol=1e-5, atol=1e-7)


def test_second_derivatives(model):
    """The hessian beside finite differences of gradients, and double backward by torch's own check."""
    x = X[:2]

    def scalar(x):
        return model(x).square().sum()

    @torch.enable_grad()
    def gradient(x):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(scalar(x), x)[0]

    expected = jacobian(gradient, x)
    torch.testing.assert_close(hessian(scalar)(x), expected, rtol=1e-4, atol=1e-6)
    assert torch.autograd.gradgradcheck(scalar, x.clone().requires_grad_(), atol=1e-4)


def test_a_penalty_on_the_gradient_reaches_every_parameter(model):
    """∂/∂θ |∂y/∂x|², by double backward beside a finite difference along one direction of all parameters."""
    values = {name: value.requires_grad_() for name, value in parameters(model).items()}

    def penalty(values):
        x = X.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(model, values, x), x, create_graph=True)
        return gradient.square().sum()

    torch.manual_seed(2)
    tangents = {name: torch.randn_like(value) for name, value in values.items()}
    found = torch.autograd.grad(penalty(values), list(values.values()), materialize_grads=True)
    slope = sum((one * tangents[name]).sum() for name, one in zip(values, found, strict=True))
    step = 1e-6
    ahead, behind = ({n: v + sign * step * tangents[n] for n, v in values.items()} for sign in (1, -1))
    torch.testing.assert_close(slope, (penalty(ahead) - penalty(behind)).detach() / (2 * step), rtol=1e-5, atol=1e-6)


def test_an_ensemble_of_mixtures_runs_at_once():
    """`stack_module_state` and vmap, as torch's tutorial on ensembles has it."""
    torch.manual_seed(0)
    models = [mixture("stack", "top2").double() for _ in range(3)]
    stacked, buffers = torch.func.stack_module_state(models)
    y = vmap(lambda values, buffers: functional_call(models[0], (values, buffers), (X,)))(stacked, buffers)
    torch.testing.assert_close(y, torch.stack([model(X) for model in models]))


@pytest.mark.parametrize("name", ["list", "stack", "ffn", "nested"])
def test_functional_call_with_the_state_of_another_model(build, batch, name):
    """With what `state_dict` gives, and with parameters and buffers by name."""
    one, other = build(name).eval(), build(name, seed=1).eval()
    x = batch()[0]
    for values in (other.state_dict(), dict([*other.named_parameters(), *other.named_buffers()])):
        torch.testing.assert_close(functional_call(one, values, (x,)), other(x))
