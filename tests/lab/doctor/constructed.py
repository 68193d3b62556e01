"""Mixtures whose illness is known because it was built in, and healthy ones.

A *world* has E regimes. The first features of a row tell its regime, eight others what its class is, by a rule of the
regime's own; classes are drawn from the rule's softmax, so that the expert that knows a regime's rule is calibrated on
it. A gate that reads the regime sends each row to its expert.

`python tests/lab/doctor/constructed.py 400 500` counts what the doctor names on other draws of all rows.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import moebius as mb
from moebius.core.routing import Router, Routing
from moebius.layers.cgc import CGC

FEATURES, CLASSES = 8, 4
# Added to every seed: 0 for the draws that the thresholds were set on, among others.
draw = 0


@dataclass
class Case:
    """A mixture, rows that it has not seen, and the kind of its illness; None for a healthy one."""

    name: str
    kind: str | None
    model: nn.Module
    rows: Any
    options: dict[str, Any] = field(default_factory=dict)


class World:
    """Regimes, their rules, and rows of them."""

    def __init__(self, experts: int, rows: int = 2500, seed: int = 0, shares: Tensor | None = None, sharp: float = 4.0):
        self.experts, self.random = experts, torch.Generator().manual_seed(seed + draw)
        self.rules = self.normal(experts, CLASSES, FEATURES) * sharp / FEATURES**0.5
        weights = torch.ones(experts) if shares is None else shares
        self.regime = torch.multinomial(weights, rows, replacement=True, generator=self.random)
        place = torch.nn.functional.one_hot(self.regime, experts) + 0.1 * self.normal(rows, experts)
        self.noise = self.normal(rows, FEATURES)
        features = self.normal(rows, FEATURES)
        self.x = torch.cat([place, features, self.noise], 1)
        logits = torch.einsum("tcf,tf->tc", self.rules[self.regime], features)
        self.y = torch.multinomial(logits.softmax(-1), 1, generator=self.random).squeeze(1)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.random)

    @property
    def rows(self) -> tuple[Tensor, Tensor]:
        return self.x, self.y

    def linear(self, weights: Tensor, part: str, bias: Tensor | None = None) -> nn.Linear:
        """A linear layer that reads a part of the features: "place", "features" or "noise"."""
        start = {"place": 0, "features": self.experts, "noise": self.experts + FEATURES}[part]
        layer = nn.Linear(self.x.shape[1], len(weights))
        with torch.no_grad():
            layer.weight.zero_()
            layer.weight[:, start : start + weights.shape[1]] = weights
            layer.bias.zero_() if bias is None else layer.bias.copy_(bias)
        return layer

    def gate(self, scale: float = 12.0, order: list[int] | None = None, bias: Tensor | None = None) -> nn.Linear:
        """The gate that reads the regime; `order` sends regime r to expert order[r]."""
        weights = torch.eye(self.experts)
        if order is not None:
            weights = weights[torch.argsort(torch.tensor(order))]
        return self.linear(weights * scale, "place", bias)

    def blind(self, scale: float) -> nn.Linear:
        """A gate that reads nothing that the task depends on."""
        return self.linear(self.normal(self.experts, FEATURES) * scale, "noise")

    def expert(self, regime: int, times: float = 1.0) -> nn.Linear:
        return self.linear(self.rules[regime] * times, "features")

    def specialists(self) -> list[nn.Module]:
        return [self.expert(regime) for regime in range(self.experts)]

    def generalists(self, spread: float) -> list[nn.Module]:
        """Experts that know regime 0's rule, each with errors of its own."""
        rule = self.rules[0]
        return [self.linear(rule + spread * self.normal(*rule.shape), "features") for _ in range(self.experts)]


def mix(gate: nn.Module, experts: list[nn.Module], router: Router | None = None) -> mb.Mixture:
    """A mixture of probabilities."""
    return mb.Mixture(gate, experts, router, combine=mb.LogMixture())


def one_rule(experts: int, **arguments: Any) -> World:
    """A world in which all regimes have the same rule, so that it does not matter who serves which."""
    world = World(experts, **arguments)
    features = world.x[:, experts : experts + FEATURES]
    world.y = torch.multinomial((features @ world.rules[0].T).softmax(-1), 1, generator=world.random).squeeze(1)
    return world


class Renormalised(Router):
    """The mistake of many: the weight of a single chosen expert is divided by itself."""

    rows_sum_to = 1.0

    def max_active(self, experts: int) -> int:
        return 1

    def forward(self, scores: Tensor) -> Routing:
        probs = scores.softmax(-1)
        kept = torch.zeros_like(probs).scatter(1, probs.argmax(1, keepdim=True), 1.0)
        weights = probs * kept / (probs * kept).sum(1, keepdim=True)
        return Routing(scores, probs, weights, weights.log())


class Detached(nn.Module):
    """A gate whose scores are cut off from it."""

    def __init__(self, gate: nn.Module):
        super().__init__()
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(x).detach()


class Noisy(Router):
    """A router that goes on drawing in evaluation."""

    def __init__(self, router: Router, size: float):
        super().__init__()
        self.router, self.size = router, size

    def max_active(self, experts: int) -> int:
        return self.router.max_active(experts)

    def forward(self, scores: Tensor) -> Routing:
        return self.router(scores + self.size * torch.randn_like(scores))


def swapped(experts: int, pairs: int) -> list[int]:
    """An order in which the first regimes have each other's expert."""
    order = [*range(experts)]
    for pair in range(pairs):
        order[2 * pair], order[2 * pair + 1] = order[2 * pair + 1], order[2 * pair]
    return order


def lean(experts: int, towards: int, size: float) -> Tensor:
    """A bias of one expert."""
    bias = torch.zeros(experts)
    bias[towards] = size
    return bias


def ill() -> Iterator[Case]:
    """Two or more mixtures of each illness."""
    for experts, router in ((2, mb.routers.Soft()), (4, mb.routers.TopK(1)), (64, mb.routers.TopK(2)), (256, None)):
        world = World(experts)
        gate = world.gate(1.0, bias=lean(experts, experts // 2, 60.0) + lean(experts, 0, 30.0) * (experts == 64))
        yield Case(f"one expert of {experts}", "collapsed gate", mix(gate, world.specialists(), router), world.rows)

    for experts, ignored in ((4, 1), (16, 3), (64, 20)):
        world = one_rule(experts, rows=4000)
        bias = torch.zeros(experts)
        bias[:ignored] = -80.0
        model = mix(world.gate(bias=bias), world.generalists(0.8), None if experts == 4 else mb.routers.TopK(2))
        # Rows of the regimes of ignored experts go elsewhere.
        yield Case(f"{ignored} of {experts} ignored", "ignored expert", model, world.rows)

    for experts, size in ((2, 0.0), (8, 0.02), (32, 0.05)):
        world = World(experts)
        yield Case(f"blind gate of {experts}", "blind gate", mix(world.blind(size), world.specialists()), world.rows)

    for experts, router in ((4, mb.routers.TopK(1)), (8, mb.routers.Hash(8)), (64, mb.routers.TopK(2))):
        world = one_rule(experts)
        model = mix(world.blind(2.0), world.generalists(0.5), router)
        yield Case(f"{experts} alike, evenly used", "balanced but unspecialised", model, world.rows)

    for experts, pairs in ((4, 1), (16, 3)):
        world = World(experts)
        model = mix(world.gate(1e4, swapped(experts, pairs)), world.specialists())
        yield Case(f"{2 * pairs} regimes of {experts} decided wrongly", "saturated gate", model, world.rows)

    for experts in (4, 16):
        world = World(experts)
        wrong = swapped(experts, 1 if experts == 4 else 3)
        model = mix(world.gate(4.0, wrong), world.specialists(), Renormalised())
        yield Case(f"weight of 1 among {experts}", "vanishing gate gradient", model, world.rows)
        model = mix(Detached(world.gate(6.0, wrong)), world.specialists())
        yield Case(f"scores of {experts} detached", "vanishing gate gradient", model, world.rows)

    for experts in (3, 8, 32):
        world = World(experts)
        pool = world.specialists()
        pool[1] = world.expert(0)
        yield Case(f"two of {experts} equal", "redundant experts", mix(world.gate(), pool), world.rows)

    for experts in (4, 8):
        world = one_rule(experts)
        model = mix(world.blind(4.0), world.generalists(1.2))
        yield Case(f"{experts} that average well", "gate worse than uniform", model, world.rows)
        world = World(experts)
        model = mix(world.gate(12.0, [*range(1, experts), 0]), world.specialists())
        yield Case(f"{experts}, each to its neighbour", "gate worse than uniform", model, world.rows)

    for experts in (2, 4):
        world = one_rule(experts, rows=4000)
        pool: list[nn.Module] = [world.linear(world.normal(CLASSES, FEATURES), "features") for _ in range(experts)]
        model = mix(world.gate(), pool)
        yield Case(f"{experts} below the gate", "gate worse than its network", model, world.rows, {"baseline": True})

    for experts in (4, 16):
        world = World(experts, rows=5000)
        pool = world.specialists()
        for regime in range(experts // 4):
            pool[regime] = world.linear(0.3 * world.normal(CLASSES, FEATURES), "noise")
        yield Case(f"a quarter of {experts} untaught", "experts too weak", mix(world.gate(), pool), world.rows)
    yield _untaught_regression()

    for experts in (2, 8):
        world = World(experts, sharp=2.0)
        pool = [world.expert(regime, times=5.0) for regime in range(experts)]
        yield Case(f"{experts} five times too sure", "overconfident mixture", mix(world.gate(), pool), world.rows)

    yield from _outside()

    for experts, capacity in ((4, 1.0), (16, 1.25)):
        world = World(experts, shares=torch.linspace(1, 9, experts))
        model = mix(world.gate(), world.specialists(), mb.routers.Switch(capacity=capacity))
        yield Case(f"capacity {capacity} of {experts}", "too many drops", model, world.rows)

    for experts in (4, 8):
        world = World(experts)
        real = torch.rand(len(world.x), generator=world.random) > 0.2
        model = mix(world.gate(), world.specialists(), mb.routers.TopK(1))
        yield Case(f"{experts} and a fifth padding", "padding routed", model, world.rows, {"mask": real})

    world = World(8)
    model = mix(world.gate(3.0), world.specialists(), Noisy(mb.routers.TopK(1), 1.0))
    yield Case("noise in evaluation", "unstable routing", model, world.rows)
    model = mix(world.gate(2.0), world.specialists(), mb.routers.ExpertChoice(1.0))
    yield Case("experts choose among a batch", "unstable routing", model, world.rows)

    for shared in (2, 6):
        yield _unused_experts(shared)

    for experts in (4, 8):
        world = World(experts)
        model = mix(world.gate(12.0, swapped(experts, 1)), world.specialists(), mb.routers.TopK(1))
        yield Case(f"two of {experts} exchanged", "misrouted rows", model, world.rows)


def _untaught_regression() -> Case:
    world = World(3)
    values = world.x[:, 3] * torch.tensor([1.0, -1.0, 2.0])[world.regime] + 0.1 * world.noise[:, 0]
    slopes = torch.zeros(3, 1, FEATURES)
    slopes[:, 0, 0] = torch.tensor([1.0, -1.0, 0.0])
    experts = [world.linear(slope, "features") for slope in slopes]
    return Case(
        "a constant for a third of the numbers",
        "experts too weak",
        mb.Mixture(world.gate(), experts),
        (world.x, values.unsqueeze(1)),
        {"task": "regression"},
    )


def _outside() -> Iterator[Case]:
    for pairs in (2, 3):
        random = torch.Generator().manual_seed(pairs)
        classes = 2 * pairs
        y = torch.randint(0, classes, (2500,), generator=random)
        x = torch.nn.functional.one_hot(y, classes) + 0.15 * torch.randn(2500, classes, generator=random)
        experts = []
        for pair in range(pairs):
            network = nn.Linear(classes, 2)
            with torch.no_grad():
                network.weight.zero_()
                network.weight[:, 2 * pair : 2 * pair + 2] = 14 * torch.eye(2)
                network.bias.copy_(torch.tensor([5.0, 0.0]))
            experts.append(mb.experts.Adapter(network, classes=[2 * pair, 2 * pair + 1], total=classes, fill=-30.0))
        gate = nn.Linear(classes, pairs)
        with torch.no_grad():
            gate.bias.zero_()
            gate.weight.zero_()
            for pair in range(pairs):
                gate.weight[pair, 2 * pair : 2 * pair + 2] = 9.0
            # The last class goes to the first expert.
            gate.weight[:, -1] = 0
            gate.weight[0, -1] = 9.0
        yield Case(
            f"a class of {classes} goes astray", "expert overconfident outside its classes", mix(gate, experts), (x, y)
        )


def _unused_experts(shared: int) -> Case:
    random = torch.Generator().manual_seed(shared)
    x = torch.randn(2500, 6, generator=random)
    y = {"first": (x[:, 0] > 0).long(), "second": (x[:, 1] > 0).long()}
    gates = {}
    for name in y:
        gates[name] = nn.Linear(6, 2 + shared)
        with torch.no_grad():
            gates[name].bias[:2] -= 12.0 if name == "first" else 0.0
    experts = {name: [nn.Linear(6, 5) for _ in range(2)] for name in y}
    towers = {name: nn.Linear(5, 2) for name in y}
    model = CGC(gates, experts, [nn.Linear(6, 5) for _ in range(shared)], towers)
    task = {"kind": "multi_task", "tasks": dict.fromkeys(y, "classification")}
    return Case(f"{shared} shared do all", "task ignores its experts", model, (x, y), {"task": task})


def healthy() -> Iterator[Case]:
    """Mixtures without an illness: other sizes, routers, loads, tasks and nestings."""
    for experts in (2, 3, 8, 64, 256):
        world = World(experts, seed=1, rows=2500 if experts < 256 else 6000)
        yield Case(f"soft gate over {experts}", None, mix(world.gate(), world.specialists()), world.rows)
    for experts, router in (
        (2, mb.routers.TopK(1)),
        (4, mb.routers.Switch(capacity=2.0)),
        (16, mb.routers.TopK(1)),
        (32, mb.routers.TopK(2)),
        (128, mb.routers.TopK(1)),
        (256, mb.routers.TopK(4)),
        (4, mb.routers.Sparsemax()),
    ):
        world = World(experts, seed=2, rows=2500 if experts < 128 else 6000)
        name = f"{type(router).__name__} over {experts}"
        yield Case(name, None, mix(world.gate(), world.specialists(), router), world.rows)
    world = World(4, seed=3, shares=torch.tensor([0.7, 0.2, 0.08, 0.02]))
    yield Case("rare regimes", None, mix(world.gate(), world.specialists(), mb.routers.TopK(1)), world.rows)
    world = World(32, seed=4, rows=6000, shares=1 / torch.arange(1, 33).float())
    yield Case("32 regimes by Zipf", None, mix(world.gate(), world.specialists()), world.rows)
    world = World(4, seed=5)
    yield Case("certain and right", None, mix(world.gate(1e4), world.specialists()), world.rows)
    world = World(4, seed=6)
    yield Case("an average by design", None, mix(mb.gates.Uniform(4), world.specialists()), world.rows)
    yield _regression()
    yield _tree()
    yield _trained_layer()
    yield _two_tasks()


def _regression() -> Case:
    world = World(3, seed=7)
    values = world.x[:, 3] * torch.tensor([1.0, -1.0, 2.0])[world.regime] + 0.3 * world.noise[:, 0]
    slopes = torch.zeros(3, 1, FEATURES)
    slopes[:, 0, 0] = torch.tensor([1.0, -1.0, 2.0])
    experts = [world.linear(slope, "features") for slope in slopes]
    return Case(
        "numbers", None, mb.Mixture(world.gate(), experts), (world.x, values.unsqueeze(1)), {"task": "regression"}
    )


def _tree() -> Case:
    world = World(4, seed=8)
    halves = [
        mix(
            world.linear(12 * torch.eye(4)[[2 * half, 2 * half + 1]], "place"),
            world.specialists()[2 * half : 2 * half + 2],
        )
        for half in range(2)
    ]
    first = world.linear(12 * torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1]]), "place")
    return Case("a tree", None, mix(first, halves, mb.routers.TopK(1)), world.rows)


def _trained_layer() -> Case:
    torch.manual_seed(0)
    world = World(4, rows=5000, seed=9)
    layer = mb.layers.SparseFFN(16, 32, experts=4, k=2)
    model = nn.Sequential(nn.Linear(world.x.shape[1], 16), layer, nn.Linear(16, CLASSES))
    rows = world.x[:3000], world.y[:3000]
    mb.fit(model, rows, epochs=10, lr=0.01, losses=[(mb.losses.mutual_information, 0.1)], progress=False)
    return Case("a trained layer", None, model, (world.x[3000:], world.y[3000:]))


def _two_tasks() -> Case:
    torch.manual_seed(0)
    random = torch.Generator().manual_seed(10)
    x = torch.randn(5000, 6, generator=random)
    y = {"first": (x[:, 0] * x[:, 1] > 0).long(), "second": (x[:, 2] > x[:, 3]).long()}
    gates = {name: nn.Linear(6, 4) for name in y}
    experts = {name: [nn.Sequential(nn.Linear(6, 8), nn.ReLU()) for _ in range(2)] for name in y}
    towers = {name: nn.Linear(8, 2) for name in y}
    model = CGC(gates, experts, [nn.Sequential(nn.Linear(6, 8), nn.ReLU()) for _ in range(2)], towers)
    task = {"kind": "multi_task", "tasks": dict.fromkeys(y, "classification")}
    train = x[:3000], {name: values[:3000] for name, values in y.items()}
    mb.fit(model, train, task=task, epochs=10, lr=0.01, progress=False)
    return Case("two tasks", None, model, (x[3000:], {name: v[3000:] for name, v in y.items()}), {"task": task})


def diagnose_all(seed: int = 0) -> list[dict[str, Any]]:
    """Name, built-in illness and findings of every mixture.

    Arguments:
        seed: added to the seeds of the worlds.
    """
    global draw
    draw = seed
    diagnoses = [(case, mb.diagnose(case.model, case.rows, **case.options)) for case in [*ill(), *healthy()]]
    return [{"name": case.name, "kind": case.kind, "findings": sorted(d.kinds)} for case, d in diagnoses]


if __name__ == "__main__":
    if not sys.argv[1:]:
        print(json.dumps(diagnose_all()))
    for number in map(int, sys.argv[1:]):
        cases = diagnose_all(number)
        named = [case["kind"] in case["findings"] for case in cases if case["kind"]]
        accused = [bool(case["findings"]) for case in cases if not case["kind"]]
        print(f"draw {number}: {sum(named)} of {len(named)} named, {sum(accused)} of {len(accused)} healthy accused")
