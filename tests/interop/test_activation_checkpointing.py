"""Activation checkpointing changes nothing: neither outputs and gradients, nor a balance bias, nor what is recorded."""

import runpy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import moebius as mb

SCRIPT = Path(__file__).with_name("checkpointed_processes.py")
# The papers' rate, and a layer at which a routing of the replay that differs shows in the gradients.
RATE, EXPERTS, TOKENS, DIM, STEPS = 0.001, 16, 2048, 16, 3


def router(experts=EXPERTS):
    return mb.routers.TopK(2, "sigmoid", bias_rate=RATE, experts=experts)


def network():
    return nn.Sequential(nn.Linear(DIM, DIM), nn.GELU(), nn.Linear(DIM, DIM))


def mixture(experts, **options):
    return mb.Mixture(nn.Linear(DIM, EXPERTS), experts, router(), **options)


def nested():
    inner = [mb.Mixture(nn.Linear(DIM, 4), [network() for _ in range(4)], router(4)) for _ in range(3)]
    return mixture([*inner, *(network() for _ in range(EXPERTS - 3))])


KINDS = {
    "list": lambda: mixture([network() for _ in range(EXPERTS)]),
    "stack": lambda: mixture(mb.Stack([network() for _ in range(EXPERTS)])),
    "sparse_ffn": lambda: mb.layers.SparseFFN(DIM, DIM, EXPERTS, router=router(), shared=1),
    "nested": nested,
    "heads": lambda: mb.Mixture(
        nn.Linear(DIM, 2 * EXPERTS), [network() for _ in range(EXPERTS)], mb.routers.Heads(router(), heads=2)
    ),
}
# The whole input of the checkpoint is the mixture's, or a layer is between, whose output has no graph in a first pass.
PLACES = {"alone": lambda layer: layer, "inside": lambda layer: nn.Sequential(nn.Linear(DIM, DIM), layer)}
MODES = {
    "replayed": lambda block, x: checkpoint(block, x, use_reentrant=False),
    "reentrant": lambda block, x: checkpoint(block, x, use_reentrant=True),
    "twice": lambda block, x: checkpoint(lambda x: checkpoint(block, x, use_reentrant=False), x, use_reentrant=False),
    "reentrant twice": lambda block, x: checkpoint(
        lambda x: checkpoint(block, x, use_reentrant=True), x, use_reentrant=True
    ),
}


def trained(kind, place, run, pieces=1):
    """Of each of some steps: gradients, the biases after it, and every routing's weights by the mixture's path."""
    torch.manual_seed(0)
    block = PLACES[place](KINDS[kind]())
    optimizer = torch.optim.SGD(block.parameters(), lr=0.1)
    found = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        with mb.record(block) as log:
            for x in torch.randn(TOKENS, DIM).chunk(pieces):
                run(block, x.requires_grad_()).square().sum().div(TOKENS).backward()
        optimizer.step()
        mb.step_routers(block)
        gradients = {name: parameter.grad.clone() for name, parameter in block.named_parameters()}
        biases = {name: value.clone() for name, value in block.named_buffers()}
        weights = {path: [routing.weights.detach() for routing in calls] for path, calls in log.items()}
        found.append((gradients, biases, weights))
    return found


@pytest.fixture(scope="module")
def plain():
    """What comes of training without checkpoints, computed once for each kind and place."""
    known = {}

    def of(kind, place):
        if (kind, place) not in known:
            known[kind, place] = trained(kind, place, lambda block, x: block(x))
        return known[kind, place]

    return of


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_bias_and_records_are_those_without(kind, place, mode, plain):
    expected = plain(kind, place)
    for step, (found, there) in enumerate(zip(trained(kind, place, MODES[mode]), expected, strict=True)):
        torch.testing.assert_close(found, there, msg=lambda said, step=step: f"step {step}: {said}")
    biases = expected[-1][1]
    assert biases
    assert all(bias.count_nonzero() >= len(bias) - 2 for bias in biases.values())


def test_checkpoints_one_after_another():
    """Each with a mixture of its own, by the function that transformers and torchvision use."""
    found = []
    for reentrant in (None, False, True):
        torch.manual_seed(0)
        layers = nn.Sequential(*(KINDS["sparse_ffn"]() for _ in range(3)))
        for _ in range(STEPS):
            x = torch.randn(TOKENS, DIM).requires_grad_()
            y = layers(x) if reentrant is None else checkpoint_sequential(layers, 3, x, use_reentrant=reentrant)
            layers.zero_grad()
            y.square().mean().backward()
            mb.step_routers(layers)
        found.append(([one.grad for one in layers.parameters()], list(layers.buffers())))
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0])


@pytest.mark.parametrize("mode", ["replayed", "reentrant"])
@pytest.mark.parametrize("kind", ["list", "sparse_ffn"])
def test_two_micro_batches_move_the_bias_as_one_batch(kind, mode, plain):
    """Also where only one of them is checkpointed: one that counts twice would pull the mean towards itself."""
    calls = []

    def every_second(block, x):
        calls.append(x)
        return MODES[mode](block, x) if len(calls) % 2 else block(x)

    for run in (MODES[mode], every_second):
        for found, there in zip(trained(kind, "inside", run, pieces=2), plain(kind, "inside"), strict=True):
            torch.testing.assert_close(found[1], there[1], rtol=0, atol=0)
            torch.testing.assert_close(found[0], there[0], rtol=1e-3, atol=1e-5)


@pytest.fixture(scope="module")
def processes(tmp_path_factory, two_at_once):
    """The results of two processes that share every batch."""
    folder = tmp_path_factory.mktemp("processes")
    two_at_once(SCRIPT, folder)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module")
def alone():
    return runpy.run_path(str(SCRIPT))["results"]()


@pytest.mark.parametrize("mode", ["none", "replayed", "reentrant"])
def test_two_processes_are_one(mode, processes, alone):
    expected = alone["none"]
    assert all(bias.any() for bias in expected["biases"])
    for found in (alone[mode], *(process[mode] for process in processes)):
        torch.testing.assert_close(found["biases"], expected["biases"], rtol=0, atol=0)
        torch.testing.assert_close(found["parameters"], expected["parameters"])
    assert alone[mode]["recorded"] == sum(process[mode]["recorded"] for process in processes)
    assert alone[mode]["recorded"] == expected["recorded"]


def test_an_auxiliary_loss_has_its_gradient_or_is_refused():
    """Over several layers, as a transformer's: the loss of all their routings."""
    gradients = {}
    for mode, run in {"none": lambda block, x: block(x), **MODES}.items():
        torch.manual_seed(0)
        layers = nn.ModuleList(nn.Sequential(nn.Linear(DIM, DIM), KINDS["sparse_ffn"]()) for _ in range(2))
        x = torch.randn(64, DIM).requires_grad_()
        with mb.record(layers) as log:
            for layer in layers:
                x = run(layer, x)
        routings = [routing for calls in log.values() for routing in calls]
        assert len(routings) == 2
        loss = x.square().mean() + sum(mb.losses.z_loss(routing) for routing in routings)
        if "reentrant" in mode:
            with pytest.raises(
                mb.MoebiusError, match=r"fix: torch.utils.checkpoint.checkpoint\(…, use_reentrant=False"
            ):
                loss.backward()
        else:
            loss.backward()
            gradients[mode] = [parameter.grad for parameter in layers.parameters()]
    assert list(gradients) == ["none", "replayed", "twice"]
    torch.testing.assert_close(gradients["replayed"], gradients["none"])
    torch.testing.assert_close(gradients["twice"], gradients["none"])


SHIFTED = 4


class Shifted(nn.Module):
    """A gate that wants the batch's context."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(DIM, SHIFTED)

    def forward(self, x, context):
        return self.linear(x) + context["shift"].view(-1, *[1] * (x.ndim - 1)) * torch.arange(SHIFTED)


def of_context():
    experts = [network() for _ in range(SHIFTED - 1)]
    inner = mb.Mixture(Shifted(), [network() for _ in range(SHIFTED)], mb.routers.TopK(1))
    return mb.Mixture(Shifted(), [*experts, nn.Sequential(nn.Linear(DIM, DIM), inner)], mb.routers.TopK(2))


AROUND = {
    "masked ffn": (lambda: mb.layers.SparseFFN(DIM, DIM, SHIFTED), "mask"),
    "masked list": (lambda: mb.Mixture(nn.Linear(DIM, 4), [network() for _ in range(4)], mb.routers.TopK(2)), "mask"),
    "masked soft": (lambda: mb.layers.SoftMoE(DIM, [nn.Linear(DIM, DIM) for _ in range(2)]), "mask"),
    "context": (of_context, "shift"),
}


@pytest.mark.parametrize("mode", ["none", *MODES])
@pytest.mark.parametrize("kind", AROUND)
def test_what_was_around_the_forward_is_so_in_the_replay(kind, mode):
    """Backward stands behind the block that says which rows are real; another block is around it."""
    torch.manual_seed(0)
    make, name = AROUND[kind]
    block = nn.Sequential(make(), make())
    run = MODES.get(mode, lambda block, x: block(x))
    x = [torch.randn(3, 5, DIM, requires_grad=True) for _ in range(2)]
    length = torch.tensor([[5, 2, 4], [1, 3, 0]])
    values = [torch.arange(5) < one[:, None] if name == "mask" else one for one in length]
    outputs = []
    for rows, value in zip(x, values, strict=True):
        with mb.context(**{name: value}):
            outputs.append(run(block, rows))
    with mb.context(**{name: values[1]}):
        (outputs[0].square().sum() + outputs[1].square().sum()).backward()
    total = 0
    for rows, value in zip(x, values, strict=True):
        with mb.context(**{name: value}):
            total = total + block(rows).square().sum()
    wanted = [*x, *block.parameters()]
    expected = torch.autograd.grad(total, wanted, materialize_grads=True)
    torch.testing.assert_close([tensor.grad for tensor in wanted], list(expected))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["list", "sparse_ffn"])
def test_recorded_outputs_do_not_change_what_is_repeated(kind, mode):
    torch.manual_seed(0)
    block, x = KINDS[kind](), torch.randn(64, DIM)
    found = []
    for run in (lambda block, x: block(x), MODES[mode]):
        rows = x.clone().requires_grad_()
        with mb.record(block, outputs=True) as log:
            y = run(block, rows)
        ((routing,),) = log.values()
        assert routing.outputs.shape == (64, EXPERTS, DIM)
        y.square().sum().backward()
        found.append(rows.grad)
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("mode", MODES)
def test_a_block_that_records_itself(mode):
    """Its recorder is inside of what is repeated, and sees the repetition."""
    torch.manual_seed(0)
    layer, x = KINDS["list"](), torch.randn(64, DIM)

    def block(x):
        with mb.record(layer) as log:
            y = layer(x)
        (routing,) = log[""]
        return y + mb.losses.z_loss(routing)

    found = []
    for run in (lambda block, x: block(x), MODES[mode]):
        layer.zero_grad()
        run(block, x.clone().requires_grad_()).square().sum().backward()
        found.append([parameter.grad.clone() for parameter in layer.parameters()])
    torch.testing.assert_close(*found)
