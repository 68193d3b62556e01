import inspect

import pytest
import torch

import moebius as mb
from moebius.gates.vgg import VGG
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
    module = VGG(channels=3, size=8, experts=7, **options)
    kept = {name: getattr(module, name) for name in inspect.signature(VGG).parameters}
    assert str(VGG(**kept)) == str(module)


def test_one_dropout_for_all_blocks_is_a_list_of_it():
    assert VGG(3, 8, 7, filters=[[4], [4]], dropout=0.25).dropout == (0.25, 0.25)


def test_scores_become_elu_weights_in_the_router():
    moe = mb.Mixture(VGG(3, 8, 3), [mb.experts.Linear(192, 5) for _ in range(3)], mb.routers.Soft(normalisation="elu"))
    x = torch.rand(4, 3, 8, 8)
    _, log = mb.call(moe.eval(), x)
    torch.testing.assert_close(log[""][0].weights, torch.nn.functional.elu(moe.gate(x)))


def test_no_expert_is_refused():
    with pytest.raises(ArgumentError, match=r"^experts: needs a whole number of at least 1"):
        VGG(3, 8, 0)
