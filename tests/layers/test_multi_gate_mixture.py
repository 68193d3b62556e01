import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset

import moebius as mb
from moebius.kit.errors import ArgumentError
from moebius.layers import MultiGateMixture
from moebius.layers._several_gates import check_names
from moebius.testing.padding import MASK, compare_masked, make_tokens

ROUTERS = {
    "soft": mb.routers.Soft,
    "top_1": lambda: mb.routers.TopK(1),
    "top_2": lambda: mb.routers.TopK(2),
    "threshold": lambda: mb.routers.Threshold(0.3),
    "choice": lambda: mb.routers.ExpertChoice(1.0),
    "heads": lambda: mb.routers.Heads(mb.routers.TopK(1), 2),
}
EXPERTS = 5


def random_rows(*shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def make_expert(kind):
    if kind == "conv":
        return nn.Sequential(nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 2, 2), nn.Tanh(), nn.Flatten())
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh())


def make_mixture(router="soft", stack=False, kind="dense", dtype=torch.float64, towers=True, **options):
    torch.manual_seed(0)
    experts = [make_expert(kind) for _ in range(EXPERTS)]
    gate_router = ROUTERS[router]()
    gates = {task: nn.Linear(4, gate_router.gate_outputs(EXPERTS)) for task in ("click", "price", "stay")}
    outputs = {"click": nn.Linear(6, 2), "price": nn.Sequential(nn.Linear(6, 3), nn.Tanh()), "stay": nn.Linear(6, 1)}
    pool = mb.Stack(experts) if stack else experts
    return MultiGateMixture(gates, pool, outputs if towers else None, gate_router, **options).to(dtype)


def run_by_hand(moe, x, k):
    """Equations 5 to 7 of the paper, one task after another; softmax over the k largest scores."""
    outputs = {}
    for task, gate in moe.gates.items():
        scores = gate(x)
        if k == 1:
            weights = scores.softmax(-1)
            weights = weights * F.one_hot(scores.argmax(-1), EXPERTS)
        else:
            least = scores.topk(k).values[:, -1:]
            weights = scores.masked_fill(scores < least, -torch.inf).softmax(-1)
        mixed = sum(weights[:, number : number + 1] * expert(x) for number, expert in enumerate(moe.experts))
        outputs[task] = moe.towers[task](mixed)
    return outputs


def objective(outputs):
    return sum(y.mul(torch.linspace(0.5, 1.5, y.shape[-1], dtype=y.dtype)).square().sum() for y in outputs.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("stack", [False, True])
@pytest.mark.parametrize("kind", ["dense", "conv"])
@pytest.mark.parametrize(("router", "k"), [("soft", EXPERTS), ("top_1", 1), ("top_2", 2)])
def test_it_is_the_papers_equations(router, k, kind, stack, dtype):
    moe, x = make_mixture(router, stack, kind, dtype), random_rows(40, 4, dtype=dtype).requires_grad_()
    outputs, expected = moe(x), run_by_hand(moe, x, k)
    assert list(outputs) == ["click", "price", "stay"]
    tensors = [x, *moe.parameters()]
    gradients = torch.autograd.grad(objective(outputs), tensors)
    expected_gradients = torch.autograd.grad(objective(expected), tensors)
    torch.testing.assert_close(outputs, expected, rtol=1e-6, atol=1e-6)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        # In units of a tensor's largest gradient: these are sums over 40 rows.
        largest = expected_gradient.abs().max()
        torch.testing.assert_close(gradient / largest, expected_gradient / largest, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("execution", ["loop", "sorted", "dense", "gather"])
@pytest.mark.parametrize("router", ["top_1", "top_2", "threshold", "choice", "heads"])
def test_every_execution_gives_the_same(router, execution):
    moe, x = make_mixture(router, stack=True), random_rows(30, 4)
    other = MultiGateMixture(moe.gates, moe.experts, moe.towers, moe.router, execution=execution)
    outputs, expected = other(x), moe(x)
    torch.testing.assert_close(outputs, expected)
    parameters = list(moe.parameters())
    gradients = [torch.autograd.grad(objective(values), parameters) for values in (outputs, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("combine", [mb.WeightedSum("softmax"), mb.LogMixture()])
def test_a_task_has_the_output_of_a_mixture_with_its_gate(router, combine):
    moe, x = make_mixture(router, towers=False, combine=combine), random_rows(30, 4)
    for task, y in moe(x).items():
        torch.testing.assert_close(y, mb.Mixture(moe.gates[task], list(moe.experts), moe.router[task], combine)(x))


def rows_of_experts(moe):
    """Expert → how many rows each of its calls had."""
    calls = {number: [] for number in range(EXPERTS)}
    for number, expert in enumerate(moe.experts):
        expert.register_forward_hook(lambda expert, args, y, number=number: calls[number].append(args[0].clone()))
    return calls


def test_soft_gates_of_all_tasks_run_each_expert_once_on_all_rows():
    moe, x = make_mixture(), random_rows(30, 4)
    calls = rows_of_experts(moe)
    moe(x)
    assert all(len(rows) == 1 and torch.equal(rows[0], x) for rows in calls.values())


@pytest.mark.parametrize("kind", ["dense", "conv"])
@pytest.mark.parametrize("router", ["top_1", "top_2", "threshold", "choice"])
def test_an_expert_runs_once_on_the_rows_that_some_task_selected(router, kind):
    moe, x = make_mixture(router, kind=kind), random_rows(30, 4)
    calls = rows_of_experts(moe)
    with mb.record(moe) as log:
        moe(x)
    selected = torch.stack([log[f"gates.{task}"][0].weights != 0 for task in moe.tasks])
    assert 0 < selected.sum() > selected.any(0).sum() > 0, "no two tasks select the same"
    for number, rows in calls.items():
        union = selected[..., number].any(0)
        assert len(rows) == bool(union.any())
        assert not rows or torch.equal(rows[0], x[union])


def test_one_soft_task_among_selecting_ones_makes_every_expert_run_once():
    routers = {"click": mb.routers.TopK(1), "price": mb.routers.Soft(), "stay": mb.routers.TopK(2)}
    soft, x = make_mixture(), random_rows(30, 4)
    moe = MultiGateMixture(soft.gates, soft.experts, soft.towers, routers)
    assert moe.router["price"] is routers["price"]
    calls = rows_of_experts(moe)
    outputs = moe(x)
    assert [[len(rows) for rows in of_expert] for of_expert in calls.values()] == [[30]] * EXPERTS
    for task, router in routers.items():
        expected = nn.Sequential(mb.Mixture(moe.gates[task], list(moe.experts), router), moe.towers[task])(x)
        torch.testing.assert_close(outputs[task], expected)


def test_an_expert_that_no_task_selects_has_gradients_of_zero():
    moe, x = make_mixture("top_1"), random_rows(30, 4)
    with torch.no_grad():
        for gate in moe.gates.values():
            gate.bias[2] = -100.0
    calls = rows_of_experts(moe)
    objective(moe(x)).backward()
    assert not calls[2]
    assert calls[0]
    assert all(not parameter.grad.any() for parameter in moe.experts[2].parameters())


def test_where_no_task_selects_anything_outputs_are_those_of_empty_mixtures():
    moe, x = make_mixture(towers=False), random_rows(3, 4)
    moe = MultiGateMixture(moe.gates, moe.experts, router=mb.routers.TopK(2, "relu")).double()
    with torch.no_grad():
        for gate in moe.gates.values():
            gate.bias.fill_(-100.0)
    outputs = moe(x)
    assert all(not y.any() and y.shape == (3, 6) for y in outputs.values())
    objective(outputs).backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in moe.experts.parameters())


def test_each_task_has_a_routing_of_its_own_and_losses_of_it_train_its_gate_alone():
    moe, x = make_mixture("top_2"), random_rows(30, 4)
    network = nn.Sequential(nn.Linear(4, 4).double(), moe)
    with mb.record(network) as log:
        network(x)
    assert list(log) == ["1.gates.click", "1.gates.price", "1.gates.stay"]
    assert all(routing.weights.shape == (30, EXPERTS) for (routing,) in log.values())
    assert not torch.equal(log["1.gates.click"][0].weights, log["1.gates.price"][0].weights)
    for loss in (mb.losses.switch_balance, mb.losses.importance, mb.losses.z_loss):
        network.zero_grad()
        loss(log["1.gates.price"][0]).backward(retain_graph=True)
        assert moe.gates["price"].weight.grad.any()
        assert moe.gates["click"].weight.grad is None


@pytest.mark.parametrize("router", ["soft", "top_1"])
def test_recorded_outputs_are_those_of_all_experts_and_change_no_output(router):
    moe, x = make_mixture(router), random_rows(30, 4)
    with mb.record(moe, outputs=True) as log:
        outputs = moe(x)
    by_hand = torch.stack([expert(x) for expert in moe.experts], 1)
    for (routing,) in log.values():
        torch.testing.assert_close(routing.outputs, by_hand)
    torch.testing.assert_close(outputs, moe(x))


def test_a_router_is_copied_for_each_task_and_stepped_with_the_model():
    router = mb.routers.TopK(1, bias_rate=0.5, experts=EXPERTS)
    moe, x = make_mixture(), random_rows(30, 4)
    moe = MultiGateMixture(moe.gates, moe.experts, moe.towers, router)
    assert len({id(part) for part in (router, *moe.router.values())}) == 4
    moe(x)
    mb.step_routers(moe)
    biases = [part.bias for part in moe.router.values()]
    assert all(bias.any() for bias in biases)
    assert not torch.equal(biases[0], biases[1])
    assert not router.bias.any()


def test_tokens_and_images_are_rows_as_in_a_mixture():
    moe, x = make_mixture("top_2"), random_rows(2, 7, 4)
    outputs, flat = moe(x), moe(x.flatten(0, 1))
    assert outputs["click"].shape == (2, 7, 2)
    torch.testing.assert_close({task: y.flatten(0, 1) for task, y in outputs.items()}, flat)
    assert {task: tuple(y.shape) for task, y in moe(x[:0]).items()}["price"] == (0, 7, 3)


@pytest.mark.parametrize("router", ["soft", "top_2"])
def test_rows_may_be_numbers_of_categories(router):
    torch.manual_seed(0)
    experts = [nn.Sequential(nn.Embedding(20, 3), nn.Flatten(), nn.Linear(6, 6)) for _ in range(EXPERTS)]
    gates = {task: nn.Sequential(nn.Embedding(20, 3), nn.Flatten(), nn.Linear(6, EXPERTS)) for task in ("a", "b")}
    moe, ids = MultiGateMixture(gates, experts, router=ROUTERS[router]()), torch.arange(14).view(7, 2)
    for task, y in moe(ids).items():
        routing = moe.router[task](moe.gates[task](ids))
        expected = sum(routing.weights[:, [number]] * expert(ids) for number, expert in enumerate(experts))
        torch.testing.assert_close(y, expected)


class Joined(nn.Module):
    """The outputs of all tasks one behind the other, as one tensor."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, mask=None):
        return torch.cat(list(self.layer(x, mask=mask).values()), -1)


@pytest.mark.parametrize("outputs", [False, True])
@pytest.mark.parametrize("router", ["soft", "top_2", "choice", "threshold"])
@pytest.mark.parametrize("way", ["argument", "block"])
def test_padding_counts_nowhere(router, way, outputs):
    moe = Joined(make_mixture(router))
    # The losses of recorded outputs compare classes: experts with as many outputs as these have.
    for mask in (MASK, torch.zeros_like(MASK), torch.tensor([True, False, True])):
        compare_masked(moe, make_tokens(), mask, way, outputs)


def test_a_tower_sees_real_rows_and_their_context():
    class Scale(nn.Module):
        def forward(self, x, context):
            return x * context["scale"].unsqueeze(-1)

    plain = make_mixture("top_2", towers=False)
    moe = MultiGateMixture(plain.gates, plain.experts, {task: Scale() for task in plain.tasks}, plain.router)
    x, scale, mask = random_rows(6, 4), torch.arange(6.0).double(), torch.tensor([True, False, True, True, False, True])
    outputs, expected = moe(x, {"scale": scale}, mask), plain(x, mask=mask)
    for task in moe.tasks:
        torch.testing.assert_close(outputs[task], expected[task] * scale.unsqueeze(-1))


def test_mixtures_inside_experts_are_told_of_their_rows():
    inner = [mb.Mixture(mb.gates.Linear(4, 2), [nn.Linear(4, 6), nn.Linear(4, 6)]) for _ in range(3)]
    gates = {task: nn.Linear(4, 3) for task in ("click", "price")}
    moe, x = MultiGateMixture(gates, inner, router=mb.routers.TopK(1)).double(), random_rows(30, 4)
    with mb.record(moe) as log:
        moe(x)
    selected = log["gates.click"][0].weights + log["gates.price"][0].weights
    for number in range(3):
        assert log[f"experts.{number}"][0].rows.tolist() == selected[:, number].nonzero().squeeze(1).tolist()


def test_copies_and_states():
    for stack in (False, True):
        moe, x = make_mixture("top_2", stack), random_rows(9, 4)
        twin = copy.deepcopy(moe)
        torch.testing.assert_close(twin(x), moe(x), rtol=0, atol=0)
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.add_(1)
        assert not torch.allclose(twin(x)["click"], moe(x)["click"])
        # A list's state loads into a stack, and a stack's into a list.
        for other in (make_mixture("top_2", False), make_mixture("top_2", True)):
            other.load_state_dict(twin.state_dict())
            torch.testing.assert_close(other(x), twin(x))
    names = [name for name, _ in make_mixture().named_parameters()]
    assert [name for name in names if "click" in name] == [
        "gates.click.weight", "gates.click.bias", "towers.click.weight", "towers.click.bias"
    ]  # fmt: skip


@pytest.mark.parametrize("stack", [False, True])
def test_a_folder_saved_is_the_mixture_loaded(tmp_path, stack):
    experts = [mb.experts.MLP(4, 6) for _ in range(3)]
    gates = {"kind": mb.gates.Linear(4, 3), "float": mb.gates.MLP(4, 3)} if stack else {}
    gates = gates or {"click": mb.gates.Linear(4, 3), "price": mb.gates.MLP(4, 3)}
    gates = {name if name != "float" else "named": gate for name, gate in gates.items()}
    towers = {task: mb.experts.Linear(6, 1) for task in gates}
    routers = dict(zip(gates, (mb.routers.TopK(2, bias_rate=0.1, experts=3), mb.routers.Soft(0.5)), strict=True))
    moe = MultiGateMixture(gates, mb.Stack(experts) if stack else experts, towers, routers, mb.WeightedSum("softmax"))
    x = random_rows(9, 4, dtype=torch.float32)
    moe(x)
    mb.step_routers(moe)
    mb.save(moe, tmp_path)
    loaded = mb.load(tmp_path)
    assert repr(loaded) == repr(moe)
    torch.testing.assert_close(loaded(x), moe.eval()(x), rtol=0, atol=0)


def test_modules_of_no_known_kind_are_supplied_by_their_paths(tmp_path):
    moe, x = make_mixture("top_2", dtype=torch.float32), random_rows(9, 4, dtype=torch.float32)
    mb.save(moe, tmp_path)
    other = make_mixture("top_2", dtype=torch.float32)
    parts = {f"{part}.{name}": module for part in ("gates", "towers") for name, module in getattr(other, part).items()}
    parts |= dict(enumerate(other.experts))
    torch.testing.assert_close(mb.load(tmp_path, experts=parts)(x), moe(x))
    with pytest.raises(ArgumentError, match=r"gates\.click \(Linear\).*towers\.price \(Sequential\)"):
        mb.load(tmp_path, experts=list(other.experts))


class Ratings(Dataset):
    """Rows, a label and a number for each."""

    def __init__(self):
        self.x = random_rows(256, 8, dtype=torch.float32)
        self.price = (self.x[:, :4] * self.x[:, 4:]).sum(1, keepdim=True)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, row):
        return {"x": self.x[row], "click": (self.price[row, 0] > 0).long(), "price": self.price[row]}


@pytest.mark.parametrize("router", ["soft", "top_2"])
def test_a_loader_of_dicts_trains_two_targets_in_plain_pytorch(router):
    torch.manual_seed(0)
    experts = mb.Stack([nn.Sequential(nn.Linear(8, 16), nn.ReLU()) for _ in range(4)])
    gates = {"click": mb.gates.Linear(8, 4), "price": mb.gates.Linear(8, 4)}
    towers = {"click": nn.Linear(16, 2), "price": nn.Linear(16, 1)}
    moe = MultiGateMixture(gates, experts, towers, ROUTERS[router]())
    optimizer, losses = torch.optim.Adam(moe.parameters(), lr=0.01), []
    for _ in range(20):
        for batch in DataLoader(Ratings(), batch_size=64, shuffle=True):
            outputs = moe(batch["x"])
            loss_of = {"click": F.cross_entropy(outputs["click"], batch["click"])}
            loss_of["price"] = F.mse_loss(outputs["price"], batch["price"])
            optimizer.zero_grad()
            sum(loss_of.values()).backward()
            optimizer.step()
            losses.append([float(loss.detach()) for loss in loss_of.values()])
    first, last = torch.tensor(losses[:4]).mean(0), torch.tensor(losses[-4:]).mean(0)
    assert (last < 0.6 * first).all(), (first, last)


def test_the_optimizers_parts_are_gates_and_experts_with_towers():
    from moebius.lab.training.mixture_parts import expert_modules, parts

    moe = make_mixture()
    of_part = parts(moe)
    assert {id(value) for value in of_part["gate"]} == {id(value) for value in moe.gates.parameters()}
    assert len(of_part["gate"]) + len(of_part["experts"]) == len(list(moe.parameters()))
    assert list(expert_modules(moe)) == [*moe.experts, *moe.towers.values()]


def make_arguments(**changed):
    gates = {"click": nn.Linear(4, 2), "price": nn.Linear(4, 2)}
    return {"gates": gates, "experts": [nn.Linear(4, 6), nn.Linear(4, 6)], **changed}


@pytest.mark.parametrize(
    ("changed", "message", "fix"),
    [
        ({"gates": {}}, "gates: needs at least one task", "gates={"),
        ({"gates": {"a.b": nn.Linear(4, 2)}}, r"gates: needs names that a part .* got 'a\.b'", "a_b_task"),
        ({"gates": {"values": nn.Linear(4, 2)}}, "gates: needs names that a part .* got 'values'", "values_task"),
        ({"gates": dict.fromkeys(("a", "b"), nn.Linear(4, 2))}, r"gates\.b: needs a module of its own", "deepcopy"),
        (
            {"gates": {"a": mb.Mixture(nn.Linear(4, 2), [nn.Linear(4, 2), nn.Linear(4, 2)])}},
            r"gates\.a: needs a gate whose own path in a log is free",
            "Sequential",
        ),
        ({"experts": []}, "experts: needs at least one expert", "expert"),
        (
            {"towers": {"click": nn.Identity(), "prize": nn.Identity()}},
            "towers: needs an entry for each of click, price, the names of gates, and no other, got .*'prize'",
            "towers={'click': …, 'price': …}",
        ),
        ({"towers": {"click": nn.Identity()}}, "towers: needs an entry for each of click, price", "towers="),
        ({"router": {"click": mb.routers.Soft()}}, "router: needs an entry for each of click, price", "router="),
    ],
)
def test_what_it_cannot_be_made_of(changed, message, fix):
    with pytest.raises(ArgumentError, match=message) as caught:
        MultiGateMixture(**make_arguments(**changed))
    assert fix in caught.value.fix


def test_gates_have_names():
    with pytest.raises(ArgumentError, match="gates: needs a mapping from names of tasks, got 'list'"):
        check_names("gates", [nn.Linear(4, 2)])


class Pair(nn.Module):
    def forward(self, x):
        return x, x


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"gates": {"click": nn.Linear(4, 2), "price": nn.Linear(4, 3)}},
            r"^gates\.price: must give one score for each of its 2 experts, got \(5, 3\)\n  fix: gates\['price'\] = ",
        ),
        ({"gates": {"click": nn.Linear(4, 2), "price": Pair()}}, r"^gates\.price: must give one tensor"),
        ({"towers": {"click": nn.Identity(), "price": Pair()}}, r"^towers\.price: the tower, a Pair, must give one"),
        ({"towers": {"click": nn.Identity(), "price": nn.Flatten(0)}}, r"^towers\.price: the tower, a Flatten"),
        ({"experts": [nn.Linear(4, 6), nn.Linear(4, 5)]}, r"^experts\.1: gives rows of shape \(5,\)"),
    ],
)
def test_what_a_call_refuses(changed, message):
    with pytest.raises(ArgumentError, match=message) as caught:
        MultiGateMixture(**make_arguments(**changed))(torch.zeros(5, 4))
    assert caught.value.fix


def test_gates_that_see_other_rows_are_named():
    class Pooled(nn.Linear):
        def forward(self, x):
            return super().forward(x.mean(1))

    moe = MultiGateMixture(**make_arguments(gates={"click": nn.Linear(4, 2), "price": Pooled(4, 2)}))
    with pytest.raises(
        ArgumentError, match=r"^gates\.price: must keep the batch axes that gates\.click keeps, \(5, 7\)"
    ):
        moe(torch.zeros(5, 7, 4))
    with pytest.raises(ArgumentError, match=r"^mask: "):
        moe(torch.zeros(5, 7, 4), mask=torch.ones(3, dtype=torch.bool))


@pytest.mark.parametrize("outputs", [False, True])
@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("router", ["soft", "top_2"])
def test_a_checkpoint_that_repeats_the_forward_has_the_same_gradients_and_records_once(router, use_reentrant, outputs):
    moe, x, mask = Joined(make_mixture(router)), make_tokens().requires_grad_(), MASK
    gradients = []
    for is_repeated in (False, True):
        with mb.context(mask=mask), mb.record(moe, outputs=outputs) as log:
            y = checkpoint(moe, x, use_reentrant=use_reentrant) if is_repeated else moe(x)
        assert {path: len(calls) for path, calls in log.items()} == {
            f"layer.gates.{task}": 1 for task in moe.layer.tasks
        }
        for tensor in (x, *moe.parameters()):
            tensor.grad = None
        y.square().sum().backward()
        gradients.append([tensor.grad for tensor in (x, *moe.parameters())])
    torch.testing.assert_close(*gradients)
