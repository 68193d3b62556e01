"""Layers with a gate for each task or position are evaluated, cut, annealed and frozen as mixtures are."""

import copy

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.core.output_cache import OutputCache
from moebius.experts.adapter import Adapter
from moebius.lab.data.batches import Batch
from moebius.lab.data.split import Split
from moebius.lab.training.annealing import Annealing
from moebius.lab.training.cacheable_parts import cacheable_parts
from moebius.lab.training.call_model import ModelCall
from moebius.lab.training.evaluation import ROWS_AT_ONCE, evaluate
from moebius.lab.training.expert_alone import experts_alone, leaf_experts, oracle, position_oracle
from moebius.lab.training.mixture_parts import chooses_experts, gate_experts, parts
from moebius.lab.training.nonfinite_error import nonfinite_error
from moebius.lab.training.one_expert import cut_to_one_expert
from moebius.lab.training.optimizer import set_modes
from moebius.lab.training.output_caches import OutputCaches
from moebius.lab.training.settings import Settings
from moebius.routers.soft import Soft
from moebius.schedules import as_schedule
from moebius.tasks import Classification, MultiTask, Regression, Tokens

TASKS = ("click", "price")
TASK = MultiTask({"click": Classification(), "price": Regression()})
ROWS = ROWS_AT_ONCE + 44


def linear(inputs, outputs):
    return mb.experts.Linear(inputs, outputs)


def towers(width=6):
    return {"click": linear(width, 2), "price": linear(width, 1)}


def several(router=None, experts=3, **options):
    gates = {task: mb.gates.Linear(4, experts) for task in TASKS}
    return mb.layers.MultiGateMixture(gates, [linear(4, 6) for _ in range(experts)], towers(), router, **options)


def own(features=4, is_last=True, make=linear):
    gates = {task: mb.gates.Linear(features, 3) for task in TASKS}
    gates |= {} if is_last else {"shared": mb.gates.Linear(features, 4)}
    experts = {task: [make(features, 6)] for task in TASKS}
    return mb.layers.CGC(gates, experts, [make(features, 6) for _ in range(2)], towers() if is_last else None)


def levels(make=linear):
    return mb.layers.PLE([own(is_last=False, make=make), own(6, make=make)])


def positions(router=None, make=linear, stack=False):
    experts = [make(4, 5) for _ in range(3)]
    return mb.layers.PositionMixture(mb.gates.Linear(4, 3), mb.Stack(experts) if stack else experts, router)


LAYERS = {"several": several, "own": own, "levels": levels}


@pytest.fixture(autouse=True)
def _same_numbers():
    torch.manual_seed(0)


@pytest.fixture
def rows():
    labels = {"click": torch.randint(2, (ROWS,)), "price": torch.randn(ROWS, 1)}
    return Split(torch.randn(ROWS, 4), labels, torch.zeros(ROWS, dtype=torch.int64))


@pytest.fixture
def sequences():
    labels = torch.randint(5, (ROWS, 7))
    labels[:, 5:] = -100
    return Split(torch.randn(ROWS, 7, 4), labels, torch.zeros(ROWS, dtype=torch.int64))


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("inside", [False, True])
def test_every_gate_has_its_weights_of_each_row(make, inside, rows):
    model = nn.Sequential(linear(4, 4), make()) if inside else make()
    (result,) = evaluate(ModelCall(model), TASK, rows)
    with mb.record(model.eval()) as log, torch.no_grad():
        model(rows.images)
    assert list(result.gates) == [path for path, _ in model.named_modules() if path in log]
    assert {gate: weights.shape[1] for gate, weights in result.gates.items()} == gate_experts(model)
    for gate, weights in result.gates.items():
        torch.testing.assert_close(weights, log[gate][-1].weights)


def test_gates_of_no_rows_are_known(rows):
    inner = mb.Mixture(mb.gates.Linear(4, 2), [linear(4, 6) for _ in range(2)])
    model = mb.layers.MultiGateMixture(
        {task: mb.gates.Linear(4, 2) for task in TASKS}, [linear(4, 6), inner], towers(), mb.routers.TopK(1)
    )
    with torch.no_grad():
        for gate in model.gates.values():
            gate.linear.weight.zero_()
            gate.linear.bias.copy_(torch.tensor([1.0, 0.0]))
    (result,) = evaluate(ModelCall(model), TASK, rows)
    assert list(result.gates) == ["gates.click", "gates.price", "experts.1.gate"]
    assert result.gates["experts.1.gate"].isnan().all()
    assert result.active_experts("gates.price") == 1.0


def test_a_mixture_of_tokens_inside_finds_its_rows():
    inner = mb.Mixture(mb.gates.Linear(4, 2), [linear(4, 6) for _ in range(2)])
    gates = {task: mb.gates.Linear(4, 2) for task in TASKS}
    model = mb.layers.MultiGateMixture(gates, [linear(4, 6), inner], towers(), mb.routers.TopK(1))
    x, domains = torch.randn(40, 3, 4), torch.zeros(40, dtype=torch.int64)
    task = MultiTask({"click": Tokens(), "price": Regression()})
    split = Split(x, {"click": torch.zeros(40, 3, dtype=torch.int64), "price": torch.zeros(40, 3, 1)}, domains)
    (result,) = evaluate(ModelCall(model), task, split)
    reached = torch.stack([gate(x).argmax(-1) == 1 for gate in model.gates.values()]).any(0)  # (40, 3)
    weights = inner.gate(x).softmax(-1) * reached.unsqueeze(-1)
    expected = weights.sum(1) / reached.sum(1, keepdim=True)
    torch.testing.assert_close(result.gates["experts.1.gate"], expected.detach(), equal_nan=True)


@pytest.mark.parametrize("stack", [False, True])
def test_weights_of_positions_are_their_mean(stack, sequences):
    model = positions(mb.routers.TopK(2), stack=stack)
    (result,) = evaluate(ModelCall(model), Tokens(), sequences)
    with mb.record(model.eval()) as log, torch.no_grad():
        output = model(sequences.images)
    assert list(result.gates) == ["gate"]
    torch.testing.assert_close(result.gates["gate"], log[""][0].weights.unflatten(0, (ROWS, 7)).mean(1))
    assert torch.equal(result.predictions, output.argmax(-1))
    (inside,) = evaluate(ModelCall(nn.Sequential(model)), Tokens(), sequences)
    assert torch.equal(inside.gates["0.gate"], result.gates["gate"])


def test_a_mixture_inside_a_mixture_of_positions_finds_its_inputs(sequences):
    inner = mb.Mixture(nn.Sequential(nn.Flatten(), nn.Linear(28, 2)), [linear(4, 5) for _ in range(2)])
    model = mb.layers.PositionMixture(mb.gates.Linear(4, 2), [linear(4, 5), inner], mb.routers.TopK(1))
    (result,) = evaluate(ModelCall(model), Tokens(), sequences)
    reached = (model.gate(sequences.images).argmax(-1) == 1).any(1)
    assert 0 < reached.sum() < ROWS
    expected = torch.where(reached.unsqueeze(1), inner.gate(sequences.images).softmax(-1), torch.nan)
    torch.testing.assert_close(result.gates["experts.1.gate"], expected.detach(), equal_nan=True)


@pytest.mark.parametrize("name", LAYERS)
def test_one_expert_for_each_task(name, rows):
    model = LAYERS[name]().eval()
    whole = model(rows.images)
    with cut_to_one_expert(model), mb.record(model) as log:
        cut = model(rows.images)
    assert all((calls[0].weights.sum(1) == 1).all() and (calls[0].weights > 0).sum() == ROWS for calls in log.values())
    assert all(isinstance(router, Soft) for router in model.modules() if isinstance(router, mb.Router))
    assert all(torch.equal(model(rows.images)[task], whole[task]) for task in TASKS)
    assert not torch.allclose(cut["price"], whole["price"])
    if name == "several":
        outputs = torch.stack([expert(rows.images) for expert in model.experts], 1)
        chosen = outputs[torch.arange(ROWS), model.gates["click"](rows.images).argmax(-1)]
        torch.testing.assert_close(cut["click"], model.towers["click"](chosen))


def test_one_expert_for_each_position(sequences):
    model, x = positions().eval(), sequences.images
    with cut_to_one_expert(model):
        cut = model(x)
    outputs = torch.stack([expert(x) for expert in model.experts], 2)
    expert = model.gate(x).argmax(-1)[..., None, None].expand(-1, -1, 1, 5)
    torch.testing.assert_close(cut, outputs.gather(2, expert).squeeze(2))
    assert isinstance(model.router, Soft)


@pytest.mark.parametrize("stack", [False, True])
def test_experts_of_positions_are_measured_alone_and_the_oracle_picks_for_each_position(stack, sequences):
    model = positions(stack=stack)
    results = experts_alone(ModelCall(model), Tokens(), sequences, (7, 5))
    assert [alone.paths for alone in results] == [(f"experts.{number}",) for number in range(3)]
    is_right = torch.stack([expert(sequences.images).argmax(-1) == sequences.labels for expert in model.experts])
    for alone, right in zip(results, is_right, strict=True):
        torch.testing.assert_close(alone.scores, right[:, :5].float().mean(1))
    ceiling = position_oracle(results, Tokens(), sequences.labels)
    assert ceiling == pytest.approx(is_right.any(0)[:, :5].double().mean().item())
    assert max(alone.score for alone in results) <= oracle(results) < ceiling
    assert position_oracle((), Tokens(), sequences.labels) is None


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_an_expert_of_several_tasks_is_not_measured_alone(make):
    assert leaf_experts(make()) == {}
    assert chooses_experts(make())
    assert not chooses_experts(several(experts=1))
    assert not chooses_experts(nn.Sequential(make()))


@pytest.mark.parametrize("make", [*LAYERS.values(), positions], ids=[*LAYERS, "positions"])
def test_all_routers_are_annealed(make):
    model = make()
    routers = [router for router in model.modules() if isinstance(router, Soft)]
    assert len(routers) == len(gate_experts(model))
    falling = as_schedule({"kind": "linear", "start": 4.0, "end": 1.0, "epochs": 2})
    with Annealing(model, {"temperature": falling}).at(1.0):
        assert {router.temperature for router in routers} == {2.5}
    assert {router.temperature for router in routers} == {1.0}


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_towers_learn_with_the_experts(make):
    model = nn.Sequential(nn.Linear(4, 4), make())
    groups = {name: set(map(id, parameters)) for name, parameters in parts(model).items()}
    gates = [gate for layer in model.modules() if hasattr(layer, "gates") for gate in layer.gates.values()]
    assert groups["gate"] == {id(parameter) for gate in gates for parameter in gate.parameters()}
    assert groups["experts"] == {id(parameter) for parameter in model.parameters()} - groups["gate"]
    set_modes(model, Settings.model_validate({"experts": {"freeze": True}}), 0)
    tasks = [tower for layer in model.modules() for tower in (getattr(layer, "towers", None) or {}).values()]
    assert all(gate.training for gate in gates)
    assert len(tasks) == 2
    assert not any(tower.training for tower in tasks)
    set_modes(model, Settings.model_validate({"gate": {"freeze": True}}), 0)
    assert not any(gate.training for gate in gates)
    assert all(tower.training for tower in tasks)


class Counting(nn.Module):
    """A layer that counts its rows."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.layer, self.rows = nn.Linear(inputs, outputs), 0

    def forward(self, x):
        self.rows += len(x)
        return self.layer(x)


def frozen(inputs, outputs):
    return Adapter(Counting(inputs, outputs), frozen=True)


@pytest.mark.parametrize(
    ("make", "task", "count"),
    [
        (lambda: own(make=frozen), TASK, 4),
        (lambda: levels(make=frozen), TASK, 4),  # those of the second level see the outputs of the first
        (lambda: positions(mb.routers.TopK(1), make=frozen), Tokens(), 3),
    ],
    ids=["own", "levels", "positions"],
)
def test_frozen_experts_are_looked_up(make, task, count, rows, sequences):
    model = make()
    split = sequences if isinstance(task, Tokens) else rows
    assert len(cacheable_parts(model)) == count
    call = ModelCall(model)
    cache = OutputCaches(call).cache_of(split, "rows")
    networks = [part.network for part in cacheable_parts(model)]
    assert [network.rows for network in networks] == [ROWS] * count
    (looked_up,) = evaluate(call, task, split, cache)
    assert [network.rows for network in networks] == [ROWS] * count
    (computed,) = evaluate(call, task, split, OutputCache())
    assert all(network.rows > ROWS for network in networks)
    torch.testing.assert_close(looked_up.losses, computed.losses)


def test_a_tower_is_not_looked_up():
    frozen_towers = {task: frozen(6, 1) for task in TASKS}
    gates = {task: frozen(4, 2) for task in TASKS}
    model = mb.layers.MultiGateMixture(gates, [linear(4, 6), frozen(4, 6)], frozen_towers)
    assert cacheable_parts(model) == [*model.gates.values(), model.experts[1]]


class Overflows(nn.Module):
    def __init__(self, outputs=6):
        super().__init__()
        self.outputs = outputs

    def forward(self, x):
        return x.new_full((*x.shape[:-1], self.outputs), torch.inf)


def test_an_output_that_is_not_finite_is_named():
    gates = {task: mb.gates.Linear(4, 3) for task in TASKS}
    experts = {"click": mb.Stack([linear(4, 6)]), "price": [Overflows()]}
    model = mb.layers.CGC(gates, experts, mb.Stack([linear(4, 6) for _ in range(2)]), towers())
    batch = Batch(torch.randn(5, 4), torch.zeros(5), torch.zeros(5, dtype=torch.int64), torch.arange(5))
    pools = [model.experts["click"], model.shared]
    error = nonfinite_error(model, batch, {"loss": torch.tensor(torch.nan)}, 1, 2)
    assert "not finite: output of expert experts.price.0, output of tower towers.price" in str(error)
    assert [model.experts["click"], model.shared] == pools
    several_gates = several()
    several_gates.gates["click"] = Overflows(3)
    error = nonfinite_error(several_gates, batch, {"loss": torch.tensor(torch.nan)}, 1, 2)
    assert "output of gate gates.click" in str(error)
    model = mb.layers.PositionMixture(mb.gates.Linear(4, 2), [linear(4, 6), Overflows()])
    batch = Batch(torch.randn(5, 7, 4), *(torch.zeros(5, dtype=torch.int64),) * 3)
    error = nonfinite_error(model, batch, {"loss": torch.tensor(torch.nan)}, 1, 2)
    assert "not finite: output of expert experts.1" in str(error)


def test_it_trains_and_its_outcome_says_what_one_expert_loses():
    x = torch.randn(120, 4)
    targets = {"click": (x[:, 0] > 0).long(), "price": x[:, 1:2] * x[:, 2:3]}
    for make in LAYERS.values():
        fitted = mb.fit(make(), (x, targets), task=TASK, epochs=2, validation=0.25, seed=0)
        assert fitted.one_expert is not None
        assert fitted.alone == ()
        assert fitted.oracle is None
        assert set(fitted.held_out.gates) == set(gate_experts(fitted.model))
    frozen_gates = copy.deepcopy(fitted.model.state_dict())
    fitted = mb.fit(fitted.model, (x, targets), task=TASK, epochs=1, validation=0.25, trains="experts")
    changed = {name for name, value in fitted.model.state_dict().items() if not torch.equal(value, frozen_gates[name])}
    assert not any(".gates." in name for name in changed)
    assert any(".towers." in name for name in changed)
    tags = torch.randint(5, (120, 7))
    fitted = mb.fit(positions(), (torch.randn(120, 7, 4), tags), task=Tokens(), epochs=1, validation=0.25)
    assert len(fitted.alone) == 3
    assert fitted.oracle >= max(alone.score for alone in fitted.alone)
    assert fitted.one_expert.predictions.shape == (30, 7)
