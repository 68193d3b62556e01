"""Mixtures compile to one graph, forward and backward, and once for every routing.

The compiler cannot follow the type checks that tests put around every function: this file is also a script, which runs
the cases in a separate process and prints the outcome of each.
"""

import json
import shutil
import sys
import traceback
from functools import partial
from inspect import signature
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import moebius as mb
from moebius.kit.registry import find, kinds

ROUTERS = kinds("routers")
MIXTURES = ("sparse_ffn", "sparse_ffn_bf16", "swiglu", "tokens", "stack", "conv", "log_mixture", "nested", "dense")
BATCHES = ("sparse_ffn", "expert_choice", "top_k")
SPECIAL = ("recorded", "recorded_around", "context", "bias_moves", "checkpointed")
INDUCTOR = ("sparse_ffn", "stack")
# One case at least of each test; torch's own compiler takes long.
QUICK = {f"as_eager {name}" for name in ("top_k", "expert_choice", "sparse_ffn", "stack")}
QUICK |= {"batches sparse_ffn", *SPECIAL}
E, D, C, T = 4, 6, 3, 16


def make_router(kind):
    """The router with the arguments that it requires, and with those that make more of its code run."""
    arguments = {"k": 2, "experts": E, "router": mb.routers.Soft(), "heads": 2, "classes": C}
    more = {"switch": {"next_best": True}, "heads": {"router": mb.routers.Argmax()}}
    component = find("routers", kind)
    parameters = signature(component).parameters.values()
    required = [p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    return component(**{name: arguments[name] for name in required} | more.get(kind, {}))


def differs_in_eval(kind):
    """Whether the router draws noise or limits rows in training, so that its graph is another one in eval."""
    router = make_router(kind)
    torch.manual_seed(0)
    # The last experts are preferred, so that limits are reached.
    scores = torch.randn(T, router.gate_outputs(E)) + torch.arange(router.gate_outputs(E))
    trained, evaluated = router.train()(scores), router.eval()(scores)
    return not torch.equal(trained.weights, evaluated.weights)


def mixture(kind="top_k", experts=None, features=D, **options):
    router = make_router(kind)
    gate = nn.Sequential(nn.Flatten(), nn.Linear(features, router.gate_outputs(E)))
    return mb.Mixture(gate, experts or [nn.Linear(D, C) for _ in range(E)], router, **options)


def network():
    return nn.Sequential(nn.Linear(D, 8), nn.ReLU(), nn.Linear(8, C))


def convolution():
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, C))


def case(name):
    """The model and the shape of its rows."""
    sparse = {"dim": 8, "hidden": 16, "experts": E, "k": 2}
    if name == "tokens":
        return mb.layers.SparseFFN(**sparse, shared=1), (5, 8)
    if name.startswith("sparse_ffn"):
        return mb.layers.SparseFFN(**sparse), (8,)
    if name == "swiglu":
        return mb.layers.SparseFFN(**sparse, activation="swiglu", bias=False, router=mb.routers.Switch()), (8,)
    if name == "conv":
        return mixture(experts=[convolution() for _ in range(E)], features=2 * 64), (2, 8, 8)
    nested = [mixture(), mixture("argmax"), nn.Linear(D, C), nn.Linear(D, C)]
    arguments = {
        "stack": {"experts": mb.Stack([network() for _ in range(E)])},
        "log_mixture": {"combine": mb.LogMixture()},
        "nested": {"experts": nested},
        "dense": {"execution": "dense"},
    }
    return mixture(**arguments.get(name, {"kind": name})), (D,)


def rows(shape, count=T, dtype=torch.float32, seed=0):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def compiled(model, backend="aot_eager", **options):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    return torch.compile(model, fullgraph=True, backend=backend, **options)


def compilations():
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def output_and_gradients(model, run, x):
    """Output and gradients of one step, with the same noise whatever ran before."""
    torch.manual_seed(0)
    y = run(x)
    torch.manual_seed(1)
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(y, parameters, torch.randn_like(y), allow_unused=True)
    # A parameter that nothing depends on has no gradient in one, and one of zero in the other.
    return y, [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)]


def as_eager(name, backend="aot_eager"):
    """Training step, evaluation, and other routings without another compilation."""
    torch.manual_seed(0)
    dtype = torch.bfloat16 if name.endswith("bf16") else torch.float32
    tolerance = {"rtol": 5e-2, "atol": 5e-2} if dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-5}
    model, shape = case(name)
    model, x = model.to(dtype), rows(shape, dtype=dtype)
    run = compiled(model, backend)
    torch.testing.assert_close(output_and_gradients(model, run, x), output_and_gradients(model, model, x), **tolerance)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for seed in (1, 2, 3):
            run(rows(shape, dtype=dtype, seed=seed)).sum().backward()
    if name in ROUTERS and not differs_in_eval(name):
        return
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(run(x), model(x), **tolerance)
        with torch._dynamo.config.patch(error_on_recompile=True):
            x = rows(shape, dtype=dtype, seed=4)
            torch.testing.assert_close(run(x), model(x), **tolerance)


def of_any_batch(name):
    """One compilation for the first number of rows, one for all others."""
    torch.manual_seed(0)
    model, shape = case(name)
    model.eval()
    run, graphs = compiled(model), []
    for count in (8, 5, 16, 100):
        x = rows(shape, count)
        torch.testing.assert_close(
            output_and_gradients(model, run, x), output_and_gradients(model, model, x), rtol=1e-4, atol=1e-4
        )
        graphs.append(compilations())
    assert graphs == [1, 2, 2, 2], graphs


def recorded(name):
    """The log of a call inside the compiled function, and of one around it; gradients come through both."""
    model, x = mixture(), rows((D,))
    if name == "recorded":

        def run(x):
            y, log = mb.call(model, x)
            return y.sum() + log[""][-1].probs.square().sum()

        loss = compiled(run)(x)
    else:
        run = compiled(model)
        with mb.record(model) as log:
            y = run(x)
        loss = y.sum() + log[""][-1].probs.square().sum()
        with torch._dynamo.config.patch(error_on_recompile=True), mb.record(model) as log:
            run(rows((D,), seed=1))
        assert len(log[""]) == 1
    y, log = mb.call(model, x)
    expected = y.sum() + log[""][-1].probs.square().sum()
    torch.testing.assert_close(loss, expected)
    parameters = list(model.parameters())
    torch.testing.assert_close(torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters))


def context():
    """Side information from around the compiled function, other values without another compilation."""

    class ContextGate(nn.Linear):
        def forward(self, x, context):
            return super().forward(x) * context["weight"].unsqueeze(-1)

    model, x = mb.Mixture(ContextGate(D, E), [nn.Linear(D, C) for _ in range(E)], make_router("top_k")), rows((D,))
    run = compiled(model)
    for seed in (0, 1, 2):
        with mb.context(weight=rows((), seed=seed)):
            torch.testing.assert_close(run(x), model(x))
    assert compilations() == 1


def biased(seed=0):
    torch.manual_seed(seed)
    router = mb.routers.TopK(2, bias_rate=0.1, experts=E)
    return mb.Mixture(nn.Linear(D, E), [nn.Linear(D, C) for _ in range(E)], router)


def bias_moves():
    """A router counts as it does without a compiler, and what its steps change needs no other compilation."""
    model, twin = biased(), biased()
    run = compiled(model)
    for step in range(3):
        for seed in (2 * step, 2 * step + 1):
            torch.testing.assert_close(run(rows((D,), seed=seed)), twin(rows((D,), seed=seed)))
        mb.step_routers(run)
        mb.step_routers(twin)
        assert twin.router.bias.any()
        assert torch.equal(model.router.bias, twin.router.bias)
    assert compilations() == 1
    transformed = torch.func.grad(lambda scores: model.router(scores).weights.square().sum())
    scores, before = rows((E,)), model.router.bias.clone()
    torch.testing.assert_close(compiled(lambda scores: transformed(scores))(scores), transformed(scores))
    mb.step_routers(model)
    assert torch.equal(model.router.bias, before)


def checkpointed():
    """Activation checkpoints inside a compiled function, and around one: gradients and bias are those of neither."""

    def training(model, run):
        biases = []
        for seed in range(3):
            model.zero_grad()
            run(rows((D,), seed=seed).requires_grad_()).square().sum().backward()
            mb.step_routers(model)
            biases.append(model.router.bias.clone())
        return biases, [parameter.grad for parameter in model.parameters()]

    plain = biased()
    expected = training(plain, plain)
    for reentrant in (False, True):
        model = biased()
        around = training(model, partial(checkpoint, compiled(model), use_reentrant=reentrant))
        torch.testing.assert_close(around, expected)
    model = biased()
    # The compiler refuses the frame of rows that a mixture enters, unless told that a replay need not enter it.
    with torch._dynamo.config.patch(skip_fwd_side_effects_in_bwd_under_checkpoint=True):
        inside = training(model, compiled(lambda x: checkpoint(model, x, use_reentrant=False)))
    torch.testing.assert_close(inside, expected)


def main():
    cases = {f"as_eager {name}": lambda name=name: as_eager(name) for name in (*ROUTERS, *MIXTURES)}
    cases |= {f"batches {name}": lambda name=name: of_any_batch(name) for name in BATCHES}
    cases |= {f"inductor {name}": lambda name=name: as_eager(name, "inductor") for name in INDUCTOR}
    cases |= {name: lambda name=name: recorded(name) for name in SPECIAL[:2]}
    cases |= {"context": context, "bias_moves": bias_moves, "checkpointed": checkpointed}
    for name in sys.argv[1:] or cases:
        try:
            cases[name]()
            outcome = None
        except Exception:
            outcome = traceback.format_exc()[-3000:]
        print(json.dumps({name: outcome}), flush=True)


@pytest.fixture
def outcome(outcomes_of):
    names = [f"as_eager {name}" for name in (*ROUTERS, *MIXTURES)] + [f"batches {name}" for name in BATCHES]
    names += [f"inductor {name}" for name in INDUCTOR if shutil.which("g++")] + list(SPECIAL)
    return outcomes_of(Path(__file__), names, QUICK)


def each(prefix, names):
    """A parameter for each case; those that are not quick are thorough."""
    cases = [f"{prefix} {name}".strip() for name in names]
    return [
        pytest.param(case, id=name, marks=() if case in QUICK else pytest.mark.thorough)
        for case, name in zip(cases, names, strict=True)
    ]


@pytest.mark.parametrize("case", each("as_eager", ROUTERS))
def test_every_router_compiles_and_computes_as_without(outcome, case):
    assert outcome(case) is None


@pytest.mark.parametrize("case", each("as_eager", MIXTURES))
def test_mixtures_compile_and_compute_as_without(outcome, case):
    assert outcome(case) is None


@pytest.mark.parametrize("case", each("batches", BATCHES))
def test_other_batch_sizes_compile_once(outcome, case):
    assert outcome(case) is None


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch's compiler needs g++ on a CPU")
@pytest.mark.parametrize("case", each("inductor", INDUCTOR))
def test_torchs_own_compiler_computes_as_without(outcome, case):
    assert outcome(case) is None


@pytest.mark.parametrize("case", each("", SPECIAL))
def test_what_holds_around_a_compiled_mixture(outcome, case):
    assert outcome(case) is None


if __name__ == "__main__":
    main()
