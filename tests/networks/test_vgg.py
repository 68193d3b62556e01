import pytest
import torch
from torch import nn

from moebius.kit.errors import ArgumentError
from moebius.networks import VGG, ConvNet
from moebius.networks.activations import ACTIVATIONS

LAYERS = {"none": nn.Identity, "relu": nn.ReLU, "elu": nn.ELU, "tanh": nn.Tanh, "gelu": nn.GELU, "silu": nn.SiLU}


class LastMap(nn.Module):
    def forward(self, x):
        return x.permute(0, 2, 3, 1).flatten(1)


def written_out(network):
    """The same modules, layer after layer, in the order of the studies' text."""
    layers = []
    for block in network.blocks:
        for place, convolution in enumerate(block.convolutions):
            layers += [convolution, LAYERS[network.activation]()]
            layers += [] if block.norms is None else [block.norms[place]]
        layers += [nn.MaxPool2d(2), nn.Dropout(block.drop.p)]
    layers.append(LastMap())
    for layer in network.dense.linears[:-1]:
        layers += [layer, nn.ReLU(), nn.Dropout(network.hidden_dropout)]
    return nn.Sequential(*layers, network.dense.linears[-1])


def small(**changed):
    torch.manual_seed(0)
    return VGG(**{"channels": 2, "size": 11, "outputs": 3, "filters": [[4, 5], [6]], "dropout": 0.0, **changed})


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("training", [True, False])
def test_it_is_the_network_written_out_and_so_are_its_gradients(activation, batch_norm, training):
    network = small(activation=activation, batch_norm=batch_norm, hidden=[7]).double().train(training)
    x = torch.randn(6, 2, 11, 11, dtype=torch.float64)
    results = []
    for module in (network, written_out(network)):
        leaf = x.clone().requires_grad_()
        y = module.train(training)(leaf)
        results.append((y, torch.autograd.grad(y.square().sum(), [leaf, *network.parameters()])))
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("batch_norm", [True, False])
def test_dropout_is_where_the_text_has_it(batch_norm):
    network = small(dropout=[0.25, 0.5], hidden=[7], hidden_dropout=0.5, batch_norm=batch_norm, activation="relu")
    x, results = torch.randn(6, 2, 11, 11), []
    for module in (network, written_out(network)):
        torch.manual_seed(3)
        results.append(module(x))
    torch.testing.assert_close(*results)


def test_one_convolution_to_a_block_is_a_conv_net():
    network = small(filters=[[4], [5]], activation="relu", batch_norm=False, hidden=[6])
    conv_net = ConvNet(2, 11, [4, 5], [6], 3, "relu")
    conv_net.load_state_dict(dict(zip(conv_net.state_dict(), network.state_dict().values(), strict=True)))
    x = torch.randn(5, 2, 11, 11)
    assert torch.equal(network(x), conv_net(x))


def test_the_defaults_are_study_threes():
    network = VGG(3, 32, 10)
    kernels = [tuple(layer.weight.shape) for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert kernels == [(a, b, 3, 3) for a, b in [(32, 3), (32, 32), (64, 32), (64, 64), (128, 64), (128, 128)]]
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in network.modules()) == 6
    assert [block.drop.p for block in network.blocks] == [0.2, 0.3, 0.4]
    assert [(layer.in_features, layer.out_features) for layer in network.dense.linears] == [(128 * 16, 10)]


def test_study_fours_networks():
    rest = {"dropout": 0.25, "hidden": [512], "hidden_dropout": 0.5, "activation": "relu", "batch_norm": False}
    large = VGG(3, 32, 10, [[32, 32], [64, 64], [128, 128, 128]], **rest)
    assert [(layer.in_features, layer.out_features) for layer in large.dense.linears] == [(128 * 16, 512), (512, 10)]
    assert large.dropout == (0.25, 0.25, 0.25)
    assert large.dense.drop.p == 0.5
    # Counted by hand: 9 · (3·32 + 32·32 + 32·64 + 64·64) + 192 in convolutions, 64·64·512 + 512 + 5130 behind.
    small = VGG(3, 32, 10, [[32, 32], [64, 64]], **rest)
    assert sum(p.numel() for p in small.parameters()) == 9 * 7264 + 192 + 64 * 64 * 512 + 512 + 5130


@pytest.mark.parametrize("training", [True, False])
def test_channels_last_gives_the_same(training):
    network, x = small().double().train(training), torch.randn(5, 2, 11, 11, dtype=torch.float64)
    expected = network(x)
    again = network.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(again, expected)


def test_no_rows_leave_the_statistics_and_give_gradients_of_zero():
    network = small()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network(torch.zeros(0, 2, 11, 11)).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.grad is not None and p.grad.count_nonzero() == 0 for p in network.parameters())


def test_in_eval_rows_do_not_depend_on_each_other():
    network, x = small(dropout=0.5, hidden=[6], hidden_dropout=0.5).eval(), torch.randn(6, 2, 11, 11)
    torch.testing.assert_close(network(x)[2:4], network(x[2:4]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filters": []}, r"^filters: needs blocks of at least one width each, got \[\]"),
        ({"filters": [[4], []]}, r"^filters: needs blocks of at least one width each, got \[\[4\], \[\]\]"),
        ({"filters": [[4], [0]]}, r"^filters: needs whole numbers of at least 1"),
        ({"filters": [[4]] * 4}, r"^filters: an image 11 pixels wide can be halved 3 times"),
        (
            {"dropout": [0.1]},
            r"^dropout: needs one number for all blocks, or one for each of them \(2\), got \[0\.1\]",
        ),
        ({"dropout": 1.0}, r"^dropout: needs a number from 0 to below 1"),
        ({"hidden_dropout": -0.5}, r"^hidden_dropout: needs a number from 0 to below 1"),
        ({"hidden": [0]}, r"^hidden: "),
        ({"activation": "rely"}, r"^activation: needs one of none, relu"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message) as caught:
        small(**arguments)
    assert caught.value.fix


def test_the_fix_for_a_small_image_is_a_list_of_blocks():
    with pytest.raises(ArgumentError) as caught:
        VGG(1, 4, 2, [[4, 4], [8], [8]], 0.0)
    assert caught.value.fix == "filters: [[4, 4], [8]]"


def test_batch_normalisation_has_the_eps_and_the_momentum_of_the_arguments():
    network = small(batch_norm_eps=0.5, batch_norm_momentum=0.25, filters=[[4]], activation="none")
    (norm,) = (module for module in network.modules() if isinstance(module, nn.BatchNorm2d))
    maps = torch.randn(9, 4, 11, 11)
    mean, variance = maps.mean((0, 2, 3)), maps.var((0, 2, 3), correction=0)
    expected = (maps - mean.view(-1, 1, 1)) / (variance + 0.5).sqrt().view(-1, 1, 1)
    torch.testing.assert_close(norm(maps), expected)
    # Keras keeps 1 − momentum of the old statistics: .99 there is .01 here.
    torch.testing.assert_close(norm.running_mean, 0.25 * mean)
    torch.testing.assert_close(norm.running_var, 0.75 + 0.25 * maps.var((0, 2, 3)))


def test_batch_normalisation_is_torchs_by_default():
    norms = [module for module in small().modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-5, 0.1)}


@pytest.mark.parametrize(("name", "value"), [("batch_norm_eps", 0.0), ("batch_norm_momentum", 1.5)])
def test_numbers_out_of_range_of_batch_normalisation_are_refused(name, value):
    with pytest.raises(ArgumentError, match=name):
        small(**{name: value})
