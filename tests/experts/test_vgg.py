import inspect

import pytest
import torch

import moebius as mb
from moebius.experts.vgg import VGG
from moebius.kit.errors import ArgumentError
from moebius.networks import VGG as Network

SMALL = {"filters": [[4, 4], [5]], "dropout": 0.25, "hidden": [6], "hidden_dropout": 0.5, "activation": "relu"}


def test_it_is_the_network_of_as_many_outputs():
    module, network = VGG(3, 8, 7, batch_norm=False, **SMALL).eval(), Network(3, 8, 7, batch_norm=False, **SMALL).eval()
    network.load_state_dict(module.network.state_dict())
    x = torch.rand(5, 3, 8, 8)
    assert torch.equal(module(x), network(x))


@pytest.mark.parametrize("options", [{}, {**SMALL, "batch_norm": False}])
def test_it_can_be_built_again_from_its_attributes(options):
    module = VGG(channels=3, size=8, classes=7, **options)
    kept = {name: getattr(module, name) for name in inspect.signature(VGG).parameters}
    assert str(VGG(**kept)) == str(module)


def test_one_dropout_for_all_blocks_is_a_list_of_it():
    assert VGG(3, 8, 7, filters=[[4], [4]], dropout=0.25).dropout == (0.25, 0.25)


@pytest.mark.parametrize("training", [True, False])
def test_a_mixture_of_them_runs_one_after_another_while_they_draw(training):
    torch.manual_seed(0)
    experts = [VGG(3, 8, 4, batch_norm=False, **SMALL) for _ in range(2)]
    moe, x = mb.Mixture(mb.gates.Uniform(2), experts).train(training), torch.rand(5, 3, 8, 8)
    torch.manual_seed(1)
    output = moe(x)
    torch.manual_seed(1)
    torch.testing.assert_close(output, (experts[0](x) + experts[1](x)) / 2)


def test_stacked_refuses_them_while_they_draw_and_runs_them_in_eval():
    moe = mb.Mixture(mb.gates.Uniform(2), [VGG(3, 8, 4) for _ in range(2)], execution="stacked")
    x = torch.rand(5, 3, 8, 8)
    with pytest.raises(ArgumentError, match="may differ from the loop"):
        moe(x)
    by_hand = sum(expert(x) for expert in moe.eval().experts) / 2
    torch.testing.assert_close(moe(x), by_hand)


def test_no_class_is_refused():
    with pytest.raises(ArgumentError, match=r"^classes: needs a whole number of at least 1"):
        VGG(3, 8, 0)
