"""Four models that every other tool is tried on, and what the tests do with them.

The models consist of classes that torch and moebius export, so that they pickle. "list" and "stack" have the same
values and say the same: only how their experts are held differs.
"""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from filelock import FileLock
from torch import Tensor, nn
from torch.nn import functional as F

import moebius as mb

NAMES = ("list", "stack", "ffn", "nested")
ROWS, FEATURES, CLASSES, EXPERTS = 16, 8, 3, 4


def build(name: str, seed: int = 0) -> nn.Module:
    """One of the models; rows (T, FEATURES) → logits (T, CLASSES)."""
    torch.manual_seed(seed)
    return _BUILDERS[name]()


def batch(step: int = 0, rows: int = ROWS) -> tuple[Tensor, Tensor]:
    """The rows and labels of a training step."""
    generator = torch.Generator().manual_seed(1000 + step)
    x = torch.randn(rows, FEATURES, generator=generator)
    return x, x[:, :CLASSES].argmax(-1)


def adam(model: nn.Module) -> torch.optim.Optimizer:
    """AdamW; its epsilon keeps the rounding of small gradients from becoming whole steps."""
    return torch.optim.AdamW(model.parameters(), lr=1e-2, eps=1e-3)


def train(
    model: nn.Module, steps: int = 3, optimizer: torch.optim.Optimizer | None = None, first: int = 0
) -> torch.optim.Optimizer:
    """Train in a plain loop on the batches `first`, `first` + 1, …; returns the optimizer."""
    if optimizer is None:
        optimizer = adam(model)
    for step in range(first, first + steps):
        x, labels = batch(step)
        optimizer.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        optimizer.step()
        mb.step_routers(model)
    return optimizer


@torch.no_grad()
def outputs(model: Callable[..., Tensor], step: int = 100) -> Tensor:
    """What the model says of rows that no step trains on."""
    return model(batch(step)[0])


def same(one: nn.Module, other: nn.Module, rtol: float = 0.0, atol: float = 0.0) -> None:
    """Fail unless two models have the same names and values in their state dicts, and say the same of the same rows."""
    torch.testing.assert_close(dict(other.state_dict()), dict(one.state_dict()), rtol=rtol, atol=atol)
    torch.testing.assert_close(outputs(other), outputs(one), rtol=rtol, atol=atol)


def unused(name: str, seed: int = 0) -> nn.Module:
    """A mixture whose gate gets no gradient: "attentive", or one whose last expert gets no row, as "several" gates."""
    if name == "attentive":
        torch.manual_seed(seed)
        return _attentive()
    if name == "several":
        torch.manual_seed(seed)
        return _several()
    model = build(name, seed)
    model.router = mb.routers.Argmax()
    with torch.no_grad():
        model.gate.linear.bias[-1] = -100.0
    return model


def _expert() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 12), nn.GELU(), nn.Linear(12, CLASSES))


def _router() -> mb.Router:
    return mb.routers.TopK(2, "sigmoid", bias_rate=0.02, experts=EXPERTS)


def _attentive() -> nn.Module:
    bodies = [nn.Sequential(nn.Linear(FEATURES, 12), nn.GELU()) for _ in range(EXPERTS)]
    heads = [nn.Linear(12, CLASSES) for _ in range(EXPERTS)]
    return mb.layers.AttentiveMixture(nn.Linear(FEATURES, 6), bodies, heads, 6, 12, router=mb.routers.Argmax())


class Summed(nn.Module):
    """The sum of the outputs of several tasks."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return sum(self.layer(x).values())  # type: ignore[return-value]


def _several() -> nn.Module:
    gates = {task: mb.gates.Linear(FEATURES, EXPERTS) for task in ("first", "second")}
    towers = {task: nn.Linear(CLASSES, CLASSES) for task in gates}
    layer = mb.layers.MultiGateMixture(gates, [_expert() for _ in range(EXPERTS)], towers, mb.routers.Argmax())
    with torch.no_grad():
        for gate in gates.values():
            gate.linear.bias[-1] = -100.0
    return Summed(layer)


def _list() -> nn.Module:
    experts = [_expert() for _ in range(EXPERTS)]
    return mb.Mixture(mb.gates.Linear(FEATURES, EXPERTS), experts, _router())


def _stack() -> nn.Module:
    experts = mb.Stack([_expert() for _ in range(EXPERTS)])
    return mb.Mixture(mb.gates.Linear(FEATURES, EXPERTS), experts, _router())


def _ffn() -> nn.Module:
    layer = mb.layers.SparseFFN(FEATURES, 16, experts=EXPERTS, k=2, shared=1)
    return nn.Sequential(nn.Linear(FEATURES, FEATURES), nn.LayerNorm(FEATURES), layer, nn.Linear(FEATURES, CLASSES))


def _nested() -> nn.Module:
    unlike = [mb.experts.Linear(FEATURES, CLASSES), mb.experts.MLP(FEATURES, CLASSES)]
    equal = mb.Stack([mb.experts.MLP(FEATURES, CLASSES) for _ in range(3)])
    inner = [
        mb.Mixture(mb.gates.Linear(FEATURES, 2), unlike),
        mb.Mixture(mb.gates.Linear(FEATURES, 3), equal, mb.routers.TopK(2)),
    ]
    return mb.Mixture(mb.gates.MLP(FEATURES, 2), inner, mb.routers.TopK(1))


_BUILDERS: dict[str, Callable[[], nn.Module]] = {"list": _list, "stack": _stack, "ffn": _ffn, "nested": _nested}


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def model(name: str) -> nn.Module:
    return build(name)


@pytest.fixture
def other(name: str) -> nn.Module:
    """A model of the same structure with other values."""
    return build(name, seed=1)


@pytest.fixture(name="build")
def _build() -> Callable[..., nn.Module]:
    return build


@pytest.fixture(name="batch")
def _batch() -> Callable[..., tuple[Tensor, Tensor]]:
    return batch


@pytest.fixture(name="adam")
def _adam() -> Callable[[nn.Module], torch.optim.Optimizer]:
    return adam


@pytest.fixture(name="train")
def _train() -> Callable[..., torch.optim.Optimizer]:
    return train


@pytest.fixture(name="outputs")
def _outputs() -> Callable[..., Tensor]:
    return outputs


@pytest.fixture(name="same")
def _same() -> Callable[..., None]:
    return same


@pytest.fixture(name="unused")
def _unused() -> Callable[..., nn.Module]:
    return unused


@pytest.fixture(scope="session")
def two_processes(
    tmp_path_factory: pytest.TempPathFactory, two_at_once: Callable[..., None]
) -> Callable[[str], Callable[[str, int], Any]]:
    """Runs a tool of two_processes.py in two processes, and gives what reads the result of a case and a process."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # the workers of one session share the results
        folder = folder.parent

    def run(tool: str) -> Callable[[str, int], Any]:
        results = folder / tool
        with FileLock(f"{results}.lock"):
            if not results.exists():
                results.mkdir()
                two_at_once(Path(__file__).with_name("two_processes.py"), results, tool)

        def result(case: str, rank: int) -> Any:
            error = results / f"{case}.{rank}.error"
            assert not error.exists(), error.read_text(encoding="utf-8")
            return torch.load(results / f"{case}.{rank}")

        return result

    return run


@pytest.fixture(scope="session")
def transformers() -> ModuleType:
    """The library, whose import warns of this and that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("transformers", reason="transformers is not installed: pip install -e '.[dev]'")
