import pytest
import torch
from torch import nn

import moebius as mb
from moebius.kit.errors import ArgumentError
from moebius.layers import CGC, MultiGateMixture
from moebius.testing.padding import MASK, compare_masked, make_tokens

TASKS = ("click", "price")
ROUTERS = {"soft": mb.routers.Soft, "top_1": lambda: mb.routers.TopK(1), "top_2": lambda: mb.routers.TopK(2)}


def random_rows(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make_body(width=4):
    return nn.Sequential(nn.Linear(width, 6), nn.Tanh())


def make_layer(router="soft", stack=False, has_shared_gate=True, width=4, counts=(2, 1, 3), **options):
    """Experts: two of the task click, one of price, three shared."""
    torch.manual_seed(0)
    click, price, shared = counts
    gates = {"click": nn.Linear(width, click + shared), "price": nn.Linear(width, price + shared)}
    gates |= {"shared": nn.Linear(width, sum(counts))} if has_shared_gate else {}
    pools = [[make_body(width) for _ in range(count)] for count in counts]
    pools = [mb.Stack(pool) for pool in pools] if stack else pools
    own = dict(zip(TASKS, pools, strict=False))
    return CGC(gates, own, pools[2], router=ROUTERS[router](), **options).double()


def make_inputs(rows=30, width=4):
    return {name: random_rows(rows, width, seed=seed) for seed, name in enumerate((*TASKS, "shared"))}


def run_by_hand(layer, inputs):
    """Each gate's softmax over its own and the shared experts, as in section 4.1."""
    of_pool = {task: [expert(inputs[task]) for expert in layer.experts[task]] for task in TASKS}
    shared = [expert(inputs["shared"]) for expert in layer.shared]
    outputs = {}
    for name, gate in layer.gates.items():
        experts = [*of_pool[name], *shared] if name in TASKS else [*of_pool["click"], *of_pool["price"], *shared]
        scores = gate(inputs[name])
        k = getattr(layer.router[name], "k", scores.shape[1])
        least = scores.topk(k).values[:, -1:]
        weights = scores.softmax(-1) if k == 1 else scores.masked_fill(scores < least, -torch.inf).softmax(-1)
        weights = weights * (scores >= least)
        outputs[name] = sum(weights[:, number : number + 1] * y for number, y in enumerate(experts))
    return outputs


def objective(outputs):
    return sum(y.mul(torch.linspace(0.5, 1.5, y.shape[-1]).to(y)).square().sum() for y in outputs.values())


@pytest.mark.parametrize("has_shared_gate", [True, False])
@pytest.mark.parametrize("stack", [False, True])
@pytest.mark.parametrize("router", ROUTERS)
def test_it_is_the_papers_gate_control(router, stack, has_shared_gate):
    layer, inputs = make_layer(router, stack, has_shared_gate), make_inputs()
    outputs, expected = layer(inputs), run_by_hand(layer, inputs)
    assert list(outputs) == [*TASKS, "shared"][: 2 + has_shared_gate]
    torch.testing.assert_close(outputs, expected, rtol=1e-6, atol=1e-6)
    parameters = list(layer.parameters())
    gradients = [torch.autograd.grad(objective(values), parameters) for values in (outputs, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-6)


def test_one_input_is_that_of_all_paths():
    layer, x = make_layer("top_2"), random_rows(30, 4)
    torch.testing.assert_close(layer(x), layer(dict.fromkeys((*TASKS, "shared"), x)))


def test_with_equal_gates_a_pool_in_parts_is_one_pool():
    """Scores of −∞ for the experts of other tasks make a multi-gate mixture of it."""
    layer, x = make_layer(has_shared_gate=False), random_rows(30, 4)

    class Placed(nn.Module):
        def __init__(self, gate, places):
            super().__init__()
            self.gate, self.places = gate, places

        def forward(self, x):
            scores = torch.full((len(x), 6), -torch.inf, dtype=x.dtype)
            return scores.index_copy(1, self.places, self.gate(x))

    places = {"click": torch.tensor([0, 1, 3, 4, 5]), "price": torch.tensor([2, 3, 4, 5])}
    gates = {task: Placed(layer.gates[task], places[task]) for task in TASKS}
    experts = [*layer.experts["click"], *layer.experts["price"], *layer.shared]
    torch.testing.assert_close(layer(x), MultiGateMixture(gates, experts)(x))


def inputs_of_experts(layer):
    """Path of an expert → the inputs of its calls."""
    calls = {path: [] for path in layer.expert_paths("shared")}
    for path in calls:
        layer.get_submodule(path).register_forward_hook(lambda expert, args, y, path=path: calls[path].append(args[0]))
    return calls


def test_an_own_expert_runs_once_and_only_for_its_tasks_input():
    layer, inputs = make_layer(), make_inputs()
    calls = inputs_of_experts(layer)
    layer(inputs)
    for path, seen in calls.items():
        source = "shared" if path.startswith("shared") else path.split(".")[1]
        assert len(seen) == 1
        assert torch.equal(seen[0], inputs[source])


@pytest.mark.parametrize("has_shared_gate", [True, False])
def test_selected_experts_run_once_on_the_rows_of_the_gates_that_see_them(has_shared_gate):
    layer, inputs = make_layer("top_1", has_shared_gate=has_shared_gate), make_inputs()
    calls = inputs_of_experts(layer)
    with mb.record(layer) as log:
        layer(inputs)
    for path, seen in calls.items():
        union = torch.zeros(30, dtype=torch.bool)
        for name in layer.gates:
            if path in (paths := layer.expert_paths(name)):
                union |= log[f"gates.{name}"][0].weights[:, paths.index(path)] != 0
        source = "shared" if path.startswith("shared") else path.split(".")[1]
        assert len(seen) == bool(union.any())
        assert not seen or torch.equal(seen[0], inputs[source][union])
    assert any(0 < len(seen[0]) < 30 for seen in calls.values() if seen)


def test_another_tasks_experts_get_no_gradient_of_a_tasks_loss():
    layer, x = make_layer(has_shared_gate=False), random_rows(30, 4)
    layer(x)["click"].square().sum().backward()
    assert all(parameter.grad.any() for parameter in layer.experts["click"].parameters())
    assert all(parameter.grad.any() for parameter in layer.shared.parameters())
    assert all(parameter.grad is None for parameter in layer.experts["price"].parameters())


class Joined(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, mask=None):
        return torch.cat(list(self.layer(x, mask=mask).values()), -1)


@pytest.mark.parametrize("has_shared_gate", [True, False])
@pytest.mark.parametrize("router", ["soft", "top_2"])
@pytest.mark.parametrize("way", ["argument", "block"])
def test_padding_counts_nowhere(router, way, has_shared_gate):
    layer = Joined(make_layer(router, has_shared_gate=has_shared_gate))
    for mask in (MASK, torch.zeros_like(MASK), torch.tensor([True, False, True])):
        compare_masked(layer, make_tokens(), mask, way)


def test_recorded_outputs_are_those_of_the_experts_that_the_gate_sees():
    layer, inputs = make_layer("top_1"), make_inputs()
    with mb.record(layer, outputs=True) as log:
        outputs = layer(inputs)
    for name in layer.gates:
        sources = {
            path: "shared" if path.startswith("shared") else path.split(".")[1] for path in layer.expert_paths(name)
        }
        by_hand = torch.stack([layer.get_submodule(path)(inputs[source]) for path, source in sources.items()], 1)
        torch.testing.assert_close(log[f"gates.{name}"][0].outputs, by_hand)
    torch.testing.assert_close(outputs, layer(inputs))


def test_a_folder_saved_is_the_layer_loaded(tmp_path):
    own = {"click": mb.Stack([mb.experts.MLP(4, 6) for _ in range(2)]), "price": [mb.experts.Linear(4, 6)]}
    gates = {"click": mb.gates.Linear(4, 3), "price": mb.gates.Linear(4, 2), "shared": mb.gates.Linear(4, 4)}
    towers = {task: mb.experts.Linear(6, 1) for task in TASKS}
    layer, x = CGC(gates, own, [mb.experts.Linear(4, 6)], towers, mb.routers.TopK(2)), random_rows(9, 4).float()
    mb.save(layer, tmp_path)
    loaded = mb.load(tmp_path)
    assert repr(loaded) == repr(layer)
    torch.testing.assert_close(loaded(x), layer(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"gates": {"shared": nn.Linear(4, 4)}}, "gates: needs at least one task"),
        ({"experts": {"click": [nn.Linear(4, 6)]}}, "experts: needs an entry for each of click, price"),
        ({"experts": {"click": [nn.Linear(4, 6)], "price": []}}, r"experts\.price: needs at least one expert"),
        (
            {"towers": {"click": nn.Identity(), "price": nn.Identity(), "shared": nn.Identity()}},
            "towers: needs an entry for each of click, price",
        ),
    ],
)
def test_what_it_cannot_be_made_of(changed, message):
    arguments = {
        "gates": {task: nn.Linear(4, 2) for task in TASKS},
        "experts": {task: [nn.Linear(4, 6)] for task in TASKS},
        "shared": [nn.Linear(4, 6)],
    }
    with pytest.raises(ArgumentError, match=message) as caught:
        CGC(**{**arguments, **changed})
    assert caught.value.fix


def test_what_a_call_refuses():
    layer, inputs = make_layer(has_shared_gate=False), make_inputs()
    del inputs["shared"]
    with pytest.raises(ArgumentError, match=r"^x: needs an entry for each of click, price, shared"):
        layer(inputs)
    with pytest.raises(
        ArgumentError, match=r"^x\.shared: needs the batch axes of the tasks' inputs, which have 30 rows"
    ):
        layer({**inputs, "shared": random_rows(29, 4)})
    wide = make_layer(has_shared_gate=False)
    wide.shared = nn.ModuleList([nn.Linear(4, 5).double() for _ in range(3)])
    with pytest.raises(ArgumentError, match=r"^shared: gives rows of shape \(5,\) where experts\.click gives"):
        wide(random_rows(30, 4))
    with pytest.raises(ArgumentError, match=r"^gates\.price: must give one score for each of its 4 experts"):
        CGC({**layer.gates, "price": nn.Linear(4, 9).double()}, layer.experts, layer.shared)(random_rows(30, 4))


@pytest.mark.parametrize("router", ROUTERS)
def test_without_shared_experts_each_task_is_a_mixture_of_its_own(router):
    torch.manual_seed(0)
    gates = {task: nn.Linear(4, 2).double() for task in TASKS}
    own = {task: [make_body().double() for _ in range(2)] for task in TASKS}
    layer = CGC(gates, own, router=ROUTERS[router]())
    assert layer.expert_paths("click") == ["experts.click.0", "experts.click.1"]
    x = random_rows(30, 4)
    outputs = layer(x)
    for task in TASKS:
        alone = mb.Mixture(gates[task], own[task], router=ROUTERS[router]())
        torch.testing.assert_close(outputs[task], alone(x))
