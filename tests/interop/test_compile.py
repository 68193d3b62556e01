"""torch.compile: whole graphs that train as without, and that follow when other values are loaded.

The compiler cannot follow the type checks that tests put around every function: this file is also a script, which runs
the cases in a process of its own and prints what came of each.
"""

import copy
import json
import shutil
import sys
import traceback
from pathlib import Path

import pytest
import torch

import moebius as mb

NAMES = ("list", "stack", "ffn", "nested")
CASES = [f"{case} {name}" for case in ("trains", "masked") for name in NAMES]
CASES += [f"{layer} {pool}" for layer in ("tasks", "positions") for pool in ("list", "stack")]
CASES += ["sub-layer list", "inductor ffn", "whole stack", "hooked stack", "hooked ffn", "held stack"]
# Each way once; torch's own compiler takes long.
QUICK = ("trains stack", "masked ffn", "tasks stack", "sub-layer list", "whole stack", "hooked stack", "held stack")


def compiled(model, backend="aot_eager"):
    torch._dynamo.reset()
    return torch.compile(model, fullgraph=True, backend=backend)


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def gradients(model, y):
    torch.manual_seed(0)
    return torch.autograd.grad(y, list(model.parameters()), torch.randn_like(y), materialize_grads=True)


def trains(conftest, name, backend="aot_eager"):
    """Outputs, gradients and steps as without; then other values, by `load_state_dict`, in the same graph."""
    model = conftest.build(name)
    twin, run = copy.deepcopy(model), compiled(model, backend)
    x, _ = conftest.batch()
    y, expected = run(x), twin(x)
    close(y, expected)
    close(gradients(model, y), gradients(twin, expected))
    with torch._dynamo.config.patch(error_on_recompile=True):
        conftest.train(run, optimizer=conftest.adam(model))
    conftest.train(twin)
    close(dict(model.state_dict()), dict(twin.state_dict()))
    other = conftest.build(name, seed=1)
    with torch._dynamo.config.patch(error_on_recompile=True):
        model.load_state_dict(other.state_dict())
        y, expected = run(x), other(x)
    close(y, expected)
    close(gradients(model, y), gradients(other, expected))
    assert not torch.allclose(expected, twin(x), atol=1e-2)


def inductor(conftest, name):
    trains(conftest, name, "inductor")


def masked(conftest, name):
    """Which rows are real may change from call to call; what they say is what they say alone."""
    model = conftest.build(name).eval()
    # What the layers behind make of a row that no expert sees.
    nothing = model[-1](torch.zeros(8)) if name == "ffn" else torch.zeros(3)
    run = compiled(model)
    x, _ = conftest.batch()
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        for first in (4, 9, 16):
            mask = torch.arange(len(x)) < first
            with mb.context(mask=mask):
                y, expected = run(x), model(x)
            close(y, expected)
            close(gradients(model, y), gradients(model, expected))
            close(y[mask], model(x[mask]))
            close(y[~mask], nothing.expand_as(y[~mask]))
            if name == "stack":
                close(run(x, mask=mask), expected)


def tasks(conftest, name):
    """Several gates over one pool, soft and selecting, give in one graph what they give without."""
    for router in (mb.routers.Soft(), mb.routers.TopK(2)):
        torch.manual_seed(0)
        experts = [torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.GELU()) for _ in range(4)]
        gates = {task: torch.nn.Linear(8, 4) for task in ("click", "price")}
        towers = {"click": torch.nn.Linear(6, 2), "price": torch.nn.Linear(6, 1)}
        pool = mb.Stack(experts) if name == "stack" else experts
        compare_joined(conftest, mb.layers.MultiGateMixture(gates, pool, towers, router))


def positions(conftest, name):
    """Weights for each position give in one graph what they give without."""
    for router in (mb.routers.Soft(), mb.routers.TopK(2)):
        torch.manual_seed(0)
        experts = [torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.GELU()) for _ in range(4)]
        pool = mb.Stack(experts) if name == "stack" else experts
        moe = mb.layers.PositionMixture(torch.nn.Linear(8, 4), pool, router)
        compare_joined(conftest, torch.nn.Sequential(torch.nn.Unflatten(0, (4, 4)), moe))


def compare_joined(conftest, model):
    """All outputs of a model, one behind the other, and their gradients are those of the compiled model."""
    x, _ = conftest.batch()
    run = compiled(model)
    y, expected = [torch.cat(list(out.values()), -1) if isinstance(out, dict) else out for out in (run(x), model(x))]
    close(y, expected)
    close(gradients(model, y), gradients(model, expected))


def sub_layer(conftest, name):
    """Only the experts are compiled; the mixture calls what they have become."""
    model = conftest.build(name)
    twin = copy.deepcopy(model)
    for number, expert in enumerate(model.experts):
        model.experts[number] = compiled(expert)
    x, _ = conftest.batch()
    y, expected = model(x), twin(x)
    close(y, expected)
    close(gradients(model, y), gradients(twin, expected))


def whole(conftest, name):
    """`model.compile()`, in place: the state dict keeps its names."""
    model = conftest.build(name)
    twin = copy.deepcopy(model)
    torch._dynamo.reset()
    model.compile(fullgraph=True, backend="aot_eager")
    conftest.train(model)
    conftest.train(twin)
    close(dict(model.state_dict()), dict(twin.state_dict()))


def hooked(conftest, name):
    """A hook on one expert acts, outside of the graph; without it all is in one graph again."""
    model = conftest.build(name)
    stack = next(part for part in model.modules() if isinstance(part, mb.Stack))
    x, _ = conftest.batch()
    before = model(x)
    handle = stack[1].register_forward_hook(lambda part, args, y: y + 10)
    expected = model(x)
    torch._dynamo.reset()
    run = torch.compile(model, backend="aot_eager")
    close(run(x), expected)
    handle.remove()
    close(compiled(model)(x), before)
    assert not torch.allclose(before, expected, atol=1e-2)


def held(conftest, name):
    """Experts that somebody took from a stack leave one graph; a changed one is refused as without a compiler."""
    model = conftest.build(name)
    x, _ = conftest.batch()
    experts = list(model.experts)
    close(compiled(model)(x), model(x))
    experts[1].inner = torch.nn.Linear(2, 2)
    with pytest.raises(mb.MoebiusError, match="unstacked"):
        torch.compile(model, backend="aot_eager")(x)


def main():
    import conftest

    functions = {"trains": trains, "masked": masked, "sub-layer": sub_layer, "inductor": inductor, "whole": whole}
    functions |= {"tasks": tasks, "positions": positions}
    functions |= {"hooked": hooked, "held": held}
    for case in sys.argv[1:] or CASES:
        kind, name = case.split()
        try:
            functions[kind](conftest, name)
            said = None
        except Exception:
            said = traceback.format_exc()[-3000:]
        print(json.dumps({case: said}), flush=True)


@pytest.fixture
def outcome(outcomes_of):
    cases = [case for case in CASES if not case.startswith("inductor") or shutil.which("g++")]
    return outcomes_of(Path(__file__), cases, QUICK)


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case in QUICK else pytest.mark.thorough) for case in CASES]
)
def test_a_compiled_mixture_computes_as_without(outcome, case):
    if case.startswith("inductor") and shutil.which("g++") is None:
        pytest.skip("torch's compiler needs g++ on a CPU")
    assert outcome(case) is None


if __name__ == "__main__":
    main()
