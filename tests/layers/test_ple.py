import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import moebius as mb
from moebius.kit.errors import ArgumentError
from moebius.layers import CGC, PLE
from moebius.testing.padding import MASK, compare_masked, make_tokens

TASKS = ("click", "price")


def random_rows(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def make_level(width, is_last=False, router=None):
    """One expert of click, two of price, two shared."""

    def experts(count):
        return [nn.Sequential(nn.Linear(width, 6), nn.Tanh()) for _ in range(count)]

    gates = {"click": nn.Linear(width, 3), "price": nn.Linear(width, 4)}
    gates |= {} if is_last else {"shared": nn.Linear(width, 5)}
    towers = {"click": nn.Linear(6, 2), "price": nn.Linear(6, 1)} if is_last else None
    return CGC(gates, {"click": experts(1), "price": experts(2)}, experts(2), towers, router)


def make_model(levels=3, router=None):
    torch.manual_seed(0)
    numbers = range(levels)
    return PLE([make_level(4 if number == 0 else 6, number == levels - 1, router) for number in numbers]).double()


def run_by_hand(model, x):
    """Section 4.2: the inputs of a level's gates and experts are the outputs of the level before."""
    inputs = {"click": x, "price": x, "shared": x}
    for level in model.levels:
        click, price = ([expert(inputs[task]) for expert in level.experts[task]] for task in TASKS)
        shared = [expert(inputs["shared"]) for expert in level.shared]
        seen = {"click": [*click, *shared], "price": [*price, *shared], "shared": [*click, *price, *shared]}
        inputs = {
            name: torch.einsum("te,etd->td", gate(inputs[name]).softmax(-1), torch.stack(seen[name]))
            for name, gate in level.gates.items()
        }
    return {task: model.levels[-1].towers[task](inputs[task]) for task in TASKS}


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_it_is_the_papers_progressive_extraction(levels):
    model, x = make_model(levels), random_rows(30, 4)
    outputs, expected = model(x), run_by_hand(model, x)
    assert model.tasks == TASKS
    torch.testing.assert_close(outputs, expected, rtol=1e-6, atol=1e-6)
    parameters = list(model.parameters())
    losses = [sum(y.square().sum() for y in values.values()) for values in (outputs, expected)]
    torch.testing.assert_close(*(torch.autograd.grad(loss, parameters) for loss in losses), rtol=1e-6, atol=1e-6)


def test_every_expert_runs_once_in_a_forward():
    model, calls = make_model(), []
    for level in model.levels:
        for path in level.expert_paths("click") + level.expert_paths("price")[:2]:
            level.get_submodule(path).register_forward_hook(lambda expert, args, y: calls.append(len(args[0])))
    model(random_rows(30, 4))
    assert calls == [30] * 15


def test_routings_are_recorded_of_the_gates_of_each_level():
    model, x = make_model(2, mb.routers.TopK(2)), random_rows(30, 4)
    with mb.record(model) as log:
        model(x)
    shapes = {path: tuple(routing.weights.shape) for path, (routing,) in log.items()}
    assert shapes == {
        "levels.0.gates.click": (30, 3),
        "levels.0.gates.price": (30, 4),
        "levels.0.gates.shared": (30, 5),
        "levels.1.gates.click": (30, 3),
        "levels.1.gates.price": (30, 4),
    }


class Joined(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, mask=None):
        return torch.cat(list(self.layer(x, mask=mask).values()), -1)


@pytest.mark.parametrize("router", [mb.routers.Soft(), mb.routers.TopK(2)])
@pytest.mark.parametrize("way", ["argument", "block"])
def test_padding_counts_nowhere(router, way):
    model = Joined(make_model(2, router))
    for mask in (MASK, torch.zeros_like(MASK), torch.tensor([True, False, True])):
        compare_masked(model, make_tokens(), mask, way)


def test_it_trains_on_two_targets():
    torch.manual_seed(0)
    model, x = make_model(2).float(), random_rows(256, 4).float()
    price = (x[:, :2] * x[:, 2:]).sum(1, keepdim=True)
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=0.01), []
    for _ in range(150):
        outputs = model(x)
        pair = F.cross_entropy(outputs["click"], (price[:, 0] > 0).long()), F.mse_loss(outputs["price"], price)
        optimizer.zero_grad()
        sum(pair).backward()
        optimizer.step()
        losses.append([float(loss.detach()) for loss in pair])
    assert all(last < 0.6 * first for first, last in zip(losses[0], losses[-1], strict=True)), (losses[0], losses[-1])


def test_copies_states_and_folders(tmp_path):
    def level(width, is_last=False):
        gates = {task: mb.gates.Linear(width, 2) for task in TASKS} | (
            {} if is_last else {"shared": mb.gates.Linear(width, 3)}
        )
        towers = {task: mb.experts.Linear(6, 1) for task in TASKS} if is_last else None
        return CGC(gates, {task: [mb.experts.MLP(width, 6)] for task in TASKS}, [mb.experts.MLP(width, 6)], towers)

    torch.manual_seed(0)
    model, other, x = PLE([level(4), level(6, True)]), PLE([level(4), level(6, True)]), random_rows(9, 4).float()
    mb.save(model, tmp_path)
    loaded = mb.load(tmp_path)
    assert repr(loaded) == repr(model)
    other.load_state_dict(model.state_dict())
    for twin in (loaded, other, copy.deepcopy(model)):
        torch.testing.assert_close(twin(x), model(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("make_levels", "message"),
    [
        (list, "levels: needs at least one level"),
        (lambda: [make_level(4, True), make_level(6, True)], r"levels\.0\.gates: needs a gate of the shared path"),
        (lambda: [make_level(4), make_level(6)], r"levels\.1\.gates: must have no gate of the shared path"),
        (
            lambda: [CGC({"a": nn.Linear(4, 2)}, {"a": [nn.Identity()]}, [nn.Identity()]), make_level(6, True)][::-1],
            r"levels\.0\.gates: needs a gate of the shared path",
        ),
        (
            lambda: [make_level(4), CGC({"a": nn.Linear(4, 2)}, {"a": [nn.Identity()]}, [nn.Identity()])],
            r"levels\.1: needs the tasks of levels\.0, click, price",
        ),
    ],
)
def test_what_it_cannot_be_made_of(make_levels, message):
    with pytest.raises(ArgumentError, match=message) as caught:
        PLE(make_levels())
    assert caught.value.fix


def test_towers_belong_to_the_last_level():
    first = make_level(4)
    first.towers = nn.ModuleDict({task: nn.Identity() for task in TASKS})
    with pytest.raises(ArgumentError, match=r"^levels\.0\.towers: must be None before the last level"):
        PLE([first, make_level(6, True)])
