import copy

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.kit.errors import ArgumentError, MoebiusError
from moebius.lab.doctor import diagnose


def test_leaves_the_model_as_it_is(constructed):
    world = constructed.World(3, rows=400)
    router = mb.routers.TopK(1, bias_rate=0.1, experts=3)
    model = constructed.mix(
        world.gate(), [nn.Sequential(expert, nn.BatchNorm1d(4)) for expert in world.specialists()], router
    )
    model.train()
    state, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    diagnose(model, world.rows)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training
    assert model.router is router
    assert torch.equal(torch.get_rng_state(), random)


def test_gates_inside_a_network_and_inside_a_mixture_are_examined(constructed):
    world = constructed.World(4, rows=600)
    inner = constructed.mix(world.gate(), world.specialists())
    model = mb.Mixture(nn.Linear(world.x.shape[1], 2), [inner, world.expert(0)], mb.routers.TopK(1), mb.LogMixture())
    diagnosis = diagnose(model, world.rows)
    names = [gate.gate for gate in diagnosis.examinations]
    assert names == ["gate", "experts.0.gate"]
    assert len(diagnosis.examinations[0].rows) == 600
    reached = diagnosis.examinations[1]
    assert 0 < len(reached.rows) < 600
    assert reached.rows.expert_losses.shape == (len(reached.rows), 4)
    network = nn.Sequential(nn.Linear(world.x.shape[1], 8), mb.layers.SparseFFN(8, 16, experts=4), nn.Linear(8, 4))
    (gate,) = diagnose(network, world.rows).examinations
    assert gate.rows.expert_losses is None
    assert gate.outputs is not None
    assert gate.permuted is not None


def test_experts_are_compared_with_a_loop(constructed):
    world = constructed.World(3, rows=300)
    model = constructed.mix(world.gate(), world.specialists())
    (gate,) = diagnose(model, world.rows).examinations
    for number, expert in enumerate(model.experts):
        losses = nn.functional.cross_entropy(expert(world.x), world.y, reduction="none")
        torch.testing.assert_close(gate.rows.expert_losses[:, number], losses, check_dtype=False)
        right = (expert(world.x).argmax(1) == world.y).float()
        torch.testing.assert_close(gate.rows.expert_scores[:, number].float(), right)
        confidence = expert(world.x).softmax(1).amax(1)
        torch.testing.assert_close(gate.rows.expert_confidence[:, number], confidence)
    average = (
        torch.stack([expert(world.x).log_softmax(1) for expert in model.experts]).logsumexp(0) - torch.tensor(3.0).log()
    )
    torch.testing.assert_close(gate.uniform.losses, nn.functional.nll_loss(average, world.y, reduction="none"))


def test_rows_are_drawn_by_the_seed(constructed):
    world = constructed.World(2, rows=500)
    model = constructed.mix(world.gate(), world.specialists())
    first, again, other = (diagnose(model, world.rows, rows=100, seed=seed) for seed in (1, 1, 2))
    weights = [diagnosis.examinations[0].rows.weights for diagnosis in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_says_what_it_has_found_in_words_tables_and_json(constructed):
    world = constructed.World(4)
    model = constructed.mix(world.gate(bias=torch.tensor([90.0, 0, 0, 0])), world.specialists())
    diagnosis = diagnose(model, world.rows)
    assert "MB001 collapsed gate (gate)" in repr(diagnosis)
    assert "a balanced random router has 0.25" in diagnosis.findings[0].figures()
    assert diagnosis.frame().loc[0, "experts"] == (1, 2, 3)
    assert diagnosis.to_dict()["findings"][0]["code"] == "MB001"
    assert "<td>MB001 collapsed gate</td>" in diagnosis._repr_html_()
    healthy = diagnose(constructed.mix(world.gate(), world.specialists()), world.rows)
    assert repr(healthy) == "Nothing found: 1 gate on 2,500 rows."


def test_a_model_without_a_mixture_is_refused():
    with pytest.raises(MoebiusError, match="mixture"):
        diagnose(nn.Linear(2, 2), [torch.randn(5, 2)])


def test_wrong_numbers_of_rows_are_refused(constructed):
    world = constructed.World(2, rows=100)
    model = constructed.mix(world.gate(), world.specialists())
    with pytest.raises(ArgumentError, match=r"^rows: needs at least 1, got 0"):
        diagnose(model, world.rows, rows=0)
    with pytest.raises(ArgumentError, match=r"^mask: needs an entry for each of the 100 rows, got \(7,\)"):
        diagnose(model, world.rows, mask=torch.ones(7, dtype=torch.bool))
