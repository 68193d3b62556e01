"""What cannot be distributed is refused before anything is changed, with a line that mends it.

The process group has four processes, three of which do not exist: nothing that is refused talks to them.
"""

import copy

import pytest
import torch
from torch import distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore

import moebius as mb


@pytest.fixture
def mesh():
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=4)
    yield init_device_mesh("cpu", (4,))
    dist.destroy_process_group()


def mixture(experts=None, router=None):
    experts = [nn.Linear(3, 2) for _ in range(4)] if experts is None else experts
    return mb.Mixture(mb.gates.Linear(3, len(experts)), experts, router)


def refused(model, mesh, match, **options):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(mb.MoebiusError, match=match) as error:
        mb.distributed.expert_parallel(model, mesh, **options)
    assert error.value.fix
    assert {*model.state_dict()} == {*before}
    assert not any("dispatcher" in vars(part) for part in model.modules())


def test_one_process():
    with pytest.raises(mb.MoebiusError, match="torchrun"):
        mb.distributed.expert_parallel(mixture(), None)


def test_a_model_without_experts(mesh):
    refused(nn.Linear(2, 2), mesh, "mixture")


@pytest.mark.parametrize("experts", [3, 5, 6])
def test_a_stack_that_leaves_a_process_without_experts(mesh, experts):
    stack = mb.Stack([nn.Linear(3, 2) for _ in range(experts)])
    refused(mixture(stack), mesh, "an expert for each of 4 processes")


def test_a_list_with_fewer_experts_than_processes(mesh):
    refused(mixture([nn.Linear(3, 2), nn.Linear(3, 2)]), mesh, "an expert for each of 4 processes")


def test_unknown_pools(mesh):
    refused(mixture(), mesh, "needs some of experts", pools=["layers"])


def test_gradients_of_another_name(mesh):
    refused(mixture(), mesh, '"sum" or "mean"', gradients="max")


def test_a_mesh_of_some_processes(mesh):
    two = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "expert"))["expert"]
    refused(mixture(), two, "all 4 processes")


def test_a_dimension_without_that_name(mesh):
    refused(mixture(), init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor")), "dimensions")


@pytest.mark.parametrize(
    "router",
    [mb.routers.ExpertChoice(), mb.routers.Switch(eval_capacity=1.0), mb.routers.Heads(mb.routers.ExpertChoice(), 1)],
)
def test_routers_that_choose_over_the_whole_batch(mesh, router):
    refused(mixture(router=router), mesh, "per_process=True")


def test_a_bias_inside_an_expert(mesh):
    inner = mixture(router=mb.routers.TopK(1, bias_rate=0.1, experts=4))
    refused(mixture([inner, *[nn.Linear(3, 2) for _ in range(3)]]), mesh, "counts of all processes")


def test_a_part_of_two_experts(mesh):
    shared = nn.Linear(3, 2)
    refused(
        mixture([nn.Sequential(shared), nn.Sequential(shared, nn.ReLU()), nn.Linear(3, 2), nn.Linear(3, 2)]),
        mesh,
        "two",
    )


def test_hooks_of_one_expert_of_a_stack(mesh):
    model = mixture(mb.Stack([nn.Linear(3, 2) for _ in range(4)]))
    expert = model.experts[1]
    expert.register_forward_hook(lambda *_: None)
    refused(model, mesh, "hooks")


def test_tensors_without_values(mesh):
    refused(mixture().to("meta"), mesh, "ordinary tensors on cpu")


def test_a_second_time(mesh):
    model = mb.distributed.expert_parallel(mixture(), mesh)
    with pytest.raises(mb.ArgumentError, match="not distributed yet"):
        mb.distributed.expert_parallel(model, mesh)


def test_an_expert_of_a_distributed_stack_cannot_be_taken_out(mesh):
    model = mb.distributed.expert_parallel(mixture(mb.Stack([nn.Linear(3, 2) for _ in range(4)])), mesh)
    for take in (lambda: model.experts[0], lambda: [*model.experts], model.experts.unstacked):
        with pytest.raises(mb.MoebiusError, match="on several processes"):
            take()


def test_an_expert_of_another_process_has_no_parameters_and_cannot_be_called(mesh):
    model = mb.distributed.expert_parallel(mixture(), mesh)
    assert [len([*expert.parameters()]) for expert in model.experts] == [2, 0, 0, 0]
    with pytest.raises(mb.MoebiusError, match="process 3"):
        model.experts[3](torch.zeros(1, 3))


def test_records_of_mixtures_inside_experts(mesh):
    experts = [mixture(), *[nn.Linear(3, 2) for _ in range(3)]]
    model = mb.distributed.expert_parallel(mixture(experts), mesh)
    with mb.record(model), pytest.raises(mb.MoebiusError, match="inside an expert"):
        model(torch.zeros(2, 3))


def test_transforms(mesh):
    model = mb.distributed.expert_parallel(mixture(), mesh)
    with pytest.raises(mb.MoebiusError, match=r"torch\.func"):
        torch.func.vmap(model)(torch.zeros(2, 1, 3))


def test_the_copy_of_a_distributed_model_talks_with_the_same_processes(mesh):
    model = mb.distributed.expert_parallel(mixture(), mesh)
    assert copy.deepcopy(model).experts.dispatcher is model.experts.dispatcher


def test_the_choice_names_the_dispatcher_and_asks_no_process(mesh):
    model = mb.distributed.expert_parallel(mixture(), mesh)
    assert model.chosen(torch.zeros(2, 3)) == ("AllToAll", "the experts are on 4 processes")


def test_one_process_in_the_dimension_changes_nothing(mesh):
    model = mixture()
    experts = [*model.experts]
    other = init_device_mesh("cpu", (4, 1), mesh_dim_names=("data", "expert"))
    assert mb.distributed.expert_parallel(model, other) is model
    assert [*model.experts] == experts
    assert not mb.distributed.expert_parameters(model)
