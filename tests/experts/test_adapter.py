import pytest
import torch
from torch import nn

import moebius as mb
from moebius.experts.adapter import Adapter
from moebius.kit.errors import ArgumentError


def images(count=4, channels=3, size=8, seed=0):
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(seed))


class Says(nn.Module):
    """Says the same of every row."""

    def __init__(self, *values):
        super().__init__()
        self.register_buffer("values", torch.tensor(values))

    def forward(self, x):
        return self.values.expand(len(x), -1)


def body(outputs=3, channels=3):
    """Batch normalisation, dropout, and a linear layer at the end."""
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, outputs)
    )


def test_without_anything_to_do_it_is_its_network():
    network, x = body(), images()
    assert torch.equal(Adapter(network.eval()).eval()(x), network(x))


def given_to_the_network(x, **options):
    """What the network sees of images."""
    seen = []
    network = nn.Flatten()
    network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    Adapter(network, **options)(x)
    return seen[0]


def test_images_are_made_as_large_as_the_network_wants_them():
    x = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])
    # Bilinear: pixel centres lie a quarter and three quarters of the way.
    assert given_to_the_network(x, size=4)[0, 0].tolist() == [[0.0, 0.25, 0.75, 1.0]] * 4
    # Antialiased: a pixel is a mean of all that it takes the place of, and none is skipped.
    image = torch.zeros(1, 1, 8, 8)
    image[0, 0, 0, 0] = 1.0
    assert given_to_the_network(image, size=2)[0, 0, 0, 0] > 0
    same = images(1, 1, 5)
    assert torch.equal(given_to_the_network(same, size=5), same)
    assert given_to_the_network(images(2, 3, 6)[..., :5], size=4).shape == (2, 3, 4, 4)


def test_grey_becomes_three_alike_and_colours_become_grey():
    grey = images(2, 1, 4)
    assert torch.equal(given_to_the_network(grey, channels=3), torch.cat([grey] * 3, 1))
    assert torch.equal(given_to_the_network(grey, channels=1), grey)
    for colour, luma in zip(torch.eye(3).view(3, 1, 3, 1, 1), (0.299, 0.587, 0.114), strict=True):
        assert given_to_the_network(colour, channels=1).item() == pytest.approx(luma)


def test_the_transform_comes_after_size_and_channels():
    seen = []

    def watch(x):
        seen.append(x.shape)
        return 2 * x

    x = images(2, 1, 4)
    received = given_to_the_network(x, size=8, channels=3, transform=watch)
    assert seen == [(2, 3, 8, 8)]
    assert torch.equal(received, 2 * given_to_the_network(x, size=8, channels=3))


def test_a_transform_that_is_a_module_is_a_part_that_is_frozen_too():
    adapter = Adapter(nn.Identity(), transform=nn.Sequential(nn.Linear(2, 2), nn.Dropout()), frozen=True).train()
    assert not any(parameter.requires_grad for parameter in adapter.parameters())
    assert not adapter.transform[1].training


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        ("none", [-torch.inf, 2.0, -torch.inf, 1.0]),
        ("softmax", [0.0, 0.7311, 0.0, 0.2689]),
        ("log_softmax", [-torch.inf, -0.3133, -torch.inf, -1.3133]),
        ("sigmoid", [0.0, 0.8808, 0.0, 0.7311]),
        ("log", [-torch.inf, 0.6931, -torch.inf, 0.0]),
    ],
)
def test_outputs_stand_at_their_classes_and_the_others_have_no_probability(activation, expected):
    """The network's first output is class 3, its second class 1; the activation is that of its own outputs alone."""
    adapter = Adapter(Says(1.0, 2.0), classes=[3, 1], total=4, activation=activation)
    torch.testing.assert_close(adapter(torch.zeros(2, 1)), torch.tensor([expected] * 2), atol=1e-4, rtol=0)


def test_the_fill_can_be_another_number():
    assert Adapter(Says(1.0), classes=[1], total=3, fill=-5)(torch.zeros(1, 1)).tolist() == [[-5, 1, -5]]
    hard = Adapter(Says(1.0), classes=[1], total=3, fill=0.5, activation="softmax")
    assert hard(torch.zeros(1, 1)).tolist() == [[0.5, 1, 0.5]]


@pytest.mark.parametrize("total", [4, None])
def test_a_network_with_all_outputs_keeps_them(total):
    network = Says(1.0, 2.0, 3.0, 4.0)
    assert Adapter(network, classes=[3, 1], total=total or 4)(torch.zeros(1, 1)).tolist() == [[1, 2, 3, 4]]
    assert Adapter(network, total=total)(torch.zeros(1, 1)).tolist() == [[1, 2, 3, 4]]


def test_outputs_keep_their_format_and_rows_may_be_none():
    adapter = Adapter(nn.Linear(4, 2), classes=[0, 2], total=3).to(torch.bfloat16)
    assert adapter(torch.zeros(2, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert adapter(torch.zeros(0, 4, dtype=torch.bfloat16)).shape == (0, 3)


def test_classes_that_it_does_not_know_add_no_gradient_that_is_no_number():
    adapter = Adapter(nn.Linear(4, 2), classes=[0, 2], total=3)
    adapter(torch.ones(2, 4)).softmax(-1)[:, 0].sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in adapter.parameters())


def frozen_and_gate(**options):
    torch.manual_seed(0)
    experts = [Adapter(body(), frozen=True, **options), Adapter(body(), frozen=True, **options)]
    return mb.Mixture(mb.gates.Linear(192, 2), experts)


def trained(moe, parameters, steps=4):
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.1)
    for step in range(steps):
        optimizer.zero_grad()
        moe.train()(images(seed=step)).square().sum().backward()
        optimizer.step()


def test_not_a_bit_of_a_frozen_network_changes_while_the_rest_trains():
    moe = frozen_and_gate()
    before = {name: tensor.clone() for name, tensor in moe.state_dict().items()}
    trained(moe, moe.parameters())
    for name, tensor in moe.state_dict().items():
        assert torch.equal(tensor, before[name]) == name.startswith("experts"), name


def test_a_frozen_network_is_in_evaluation_whatever_train_says():
    moe, x = frozen_and_gate(), images()
    expert = moe.experts[0]
    assert moe.train() is moe
    assert expert.train() is expert
    assert not any(part.training for part in expert.modules())
    assert torch.equal(expert(x), expert(x))
    assert torch.equal(expert(x), expert.eval()(x))
    assert not any(parameter.requires_grad for parameter in expert.parameters())


def test_a_frozen_network_passes_the_gradient_on_to_its_input():
    x = images().requires_grad_()
    Adapter(body(), frozen=True)(x).square().sum().backward()
    assert x.grad.abs().sum() > 0


def test_freeze_and_back():
    moe = frozen_and_gate()
    expert = moe.experts[0]
    assert expert.freeze(False) is expert
    assert all(part.training for part in expert.modules())
    before = {name: tensor.clone() for name, tensor in moe.state_dict().items()}
    trained(moe, moe.parameters())
    for name, tensor in moe.state_dict().items():
        assert torch.equal(tensor, before[name]) == name.startswith("experts.1."), name
    expert.freeze().train()
    assert expert.frozen
    assert not any(part.training for part in expert.modules())


def test_what_tells_two_adapters_apart():
    assert Adapter(nn.Identity()).extra_repr() == "frozen=False"
    adapter = Adapter(nn.Identity(), size=4, channels=1, classes=[1], total=3, activation="softmax", frozen=True)
    assert adapter.extra_repr() == "size=4, channels=1, classes=(1,), total=3, activation=softmax, frozen=True"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activation": "relu"}, "activation: needs one of none, softmax, log_softmax, sigmoid, log, got 'relu'"),
        ({"channels": 2}, "channels: needs 1 or 3, got 2"),
        ({"size": 0}, "size: needs a whole number"),
        ({"total": 0}, "total: needs a whole number"),
        ({"classes": []}, "classes: needs positions of classes that differ, got []"),
        ({"classes": [1, 1]}, "classes: needs positions of classes that differ, got [1, 1]"),
        ({"classes": [-1]}, "classes: needs positions of classes, at least 0, got [-1]"),
        ({"classes": [0, 3], "total": 3}, "classes: needs positions from 0 to 2, got [0, 3]"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ArgumentError) as caught:
        Adapter(nn.Identity(), **arguments)
    assert str(caught.value).startswith(message)


def test_outputs_and_inputs_that_do_not_fit_are_refused():
    with pytest.raises(
        ArgumentError, match=r"network: must have an output for each of 2 classes .* or of all 5, got 3"
    ):
        Adapter(Says(1.0, 2.0, 3.0), classes=[0, 1], total=5)(torch.zeros(1, 1))
    with pytest.raises(ArgumentError, match="x: becomes 1 channel only from 3 channels"):
        Adapter(nn.Identity(), channels=1)(images(1, 2))
    with pytest.raises(ArgumentError, match="total: is needed") as caught:
        Adapter(Says(1.0), classes=[4])(torch.zeros(1, 1))
    assert caught.value.fix == "total=5, the classes of the mixture"


def test_none_of_mine_is_spread_over_the_other_classes():
    expert = Adapter(Says(0.0, 1.0, 2.0), classes=[3, 1], total=5, others=True)
    probs = expert(images(2)).exp()
    own = torch.tensor([0.0, 1.0, 2.0]).softmax(0)
    assert torch.allclose(probs[0], torch.stack([own[2] / 3, own[1], own[2] / 3, own[0], own[2] / 3]))
    as_probs = Adapter(Says(0.0, 1.0, 2.0), classes=[3, 1], total=5, others=True, activation="softmax")
    assert torch.allclose(as_probs(images(2)), probs)
    from_probs = Adapter(Says(*own.tolist()), classes=[3, 1], total=5, others=True, activation="log")
    assert torch.allclose(from_probs(images(2)).exp(), probs)
    assert "others=True" in repr(expert)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"classes": [0]}, "needs the network's own classes, and the number of all"),
        ({"total": 4}, "needs the network's own classes, and the number of all"),
        ({"classes": [0], "total": 4, "fill": -9.0}, "cannot stand beside others"),
        ({"classes": [0, 1], "total": 2}, "needs classes beside those of the network"),
    ],
)
def test_others_need_classes_that_are_others(options, rule):
    with pytest.raises(ArgumentError, match=rule):
        Adapter(Says(0.0, 1.0, 2.0), others=True, **options)


def test_a_network_without_the_output_for_others_is_refused():
    expert = Adapter(Says(0.0, 1.0), classes=[3, 1], total=5, others=True)
    with pytest.raises(ArgumentError, match="an output for each of 2 classes, and one for all others"):
        expert(images(2))


def test_a_network_of_all_classes_becomes_one_of_some_and_none_of_these():
    whole = Says(0.0, 1.0, 2.0, 3.0)
    y = Adapter(whole, kept_classes=[2, 0])(images(1))[0].softmax(-1)
    probs = torch.tensor([0.0, 1.0, 2.0, 3.0]).softmax(0)
    assert torch.allclose(y, torch.stack([probs[2], probs[0], probs[1] + probs[3]]))
    for options, rule in (
        ({"classes": [0]}, "cannot stand beside classes"),
        ({"activation": "softmax"}, "cannot stand"),
    ):
        with pytest.raises(ArgumentError, match=rule):
            Adapter(whole, kept_classes=[2, 0], **options)
    with pytest.raises(ArgumentError, match=r"outputs for the classes \[4\]"):
        Adapter(whole, kept_classes=[4])(images(1))
