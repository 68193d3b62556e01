"""Four models that every other tool is tried on, and what the tests do with them.

The models consist of classes that torch and moebius export, so that they pickle. "list" and "stack" have the same values
and say the same: only how their experts are held differs.
"""

import warnings
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import moebius as mb

# Until routers step outside of forward.
if not hasattr(mb, "step_routers"):
    mb.step_routers = lambda model: None  # type: ignore[attr-defined]

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
    optimizer = adam(model) if optimizer is None else optimizer
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


def _expert() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 12), nn.GELU(), nn.Linear(12, CLASSES))


def _router() -> mb.Router:
    return mb.routers.TopK(2, "sigmoid", bias_rate=0.02, experts=EXPERTS)


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


@pytest.fixture(scope="session")
def transformers() -> ModuleType:
    """The library, whose import warns of this and that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("transformers", reason="transformers is not installed: pip install -e '.[dev]'")
