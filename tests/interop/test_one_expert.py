"""What is done to one expert holds for it, or is refused with what to do instead: freezing, moving, replacing."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

import moebius as mb

POOLS = {"list": list, "stack": mb.Stack}
ROUTERS = {"soft": mb.routers.Soft(), "top2": mb.routers.TopK(2)}
FIX = r"(?s)fix: .*moe\.experts = torch\.nn\.ModuleList\(moe\.experts\.unstacked\(\)\)"


def mixture(pool="stack", router="top2"):
    torch.manual_seed(0)
    experts = [mb.experts.FFN(8, 6) for _ in range(4)]
    return mb.Mixture(mb.gates.Linear(8, 4), POOLS[pool](experts), ROUTERS[router])


def stepped(moe, batch, steps=3):
    optimizer = torch.optim.AdamW((p for p in moe.parameters() if p.requires_grad), lr=0.05)
    for step in range(steps):
        optimizer.zero_grad()
        moe(batch(step)[0]).square().sum().backward()
        optimizer.step()


def moved(before, after):
    return [name for name, value in before.items() if not torch.equal(value, after[name])]


def test_a_frozen_expert_of_a_list_stays(batch):
    moe = mixture("list")
    moe.experts[2].requires_grad_(False)
    before = copy.deepcopy(moe.state_dict())
    stepped(moe, batch)
    assert set(moved(before, moe.state_dict())) == {name for name in before if not name.startswith("experts.2.")}
    assert all(parameter.grad is None for parameter in moe.experts[2].parameters())


def test_freezing_one_of_a_stack_is_refused_and_the_fix_works(batch):
    moe = mixture()
    for part in (moe.experts[2], moe.experts[2].inner):
        with pytest.raises(mb.MoebiusError, match=FIX):
            part.requires_grad_(False)
    with pytest.raises((mb.MoebiusError, RuntimeError)):
        moe.experts[2].inner.weight.requires_grad = False
    y = moe(batch()[0])
    moe.experts = torch.nn.ModuleList(moe.experts.unstacked())
    torch.testing.assert_close(moe(batch()[0]), y)
    moe.experts[2].requires_grad_(False)
    before = copy.deepcopy(moe.state_dict())
    stepped(moe, batch)
    assert not [name for name in moved(before, moe.state_dict()) if name.startswith("experts.2.")]


def test_freezing_all_or_one_tensor_of_all(batch):
    moe = mixture()
    moe.experts.inner_weight.requires_grad_(False)
    before = copy.deepcopy(moe.state_dict())
    stepped(moe, batch)
    assert set(before) - set(moved(before, moe.state_dict())) == {"experts.inner_weight"}
    moe.experts.requires_grad_(False)
    before = copy.deepcopy(moe.state_dict())
    stepped(moe, batch)
    assert moved(before, moe.state_dict()) == ["gate.linear.weight", "gate.linear.bias"]
    assert not any(parameter.requires_grad for parameter in moe.experts[1].parameters())


@pytest.mark.parametrize(
    "move", [lambda part: part.double(), lambda part: part.to(torch.bfloat16), lambda part: part.to("meta")]
)
def test_moving_one_of_a_stack_is_refused(move):
    moe = mixture()
    for part in (moe.experts[2], moe.experts[2].outer):
        with pytest.raises(mb.MoebiusError, match=FIX):
            move(part)
    assert moe.experts[2].float().to("cpu").inner.weight.dtype == torch.float32
    assert moe.double().experts[2].inner.weight.dtype == torch.float64


REPLACE = {
    "part": lambda expert: setattr(expert, "inner", nn.Linear(8, 6)),
    "parameter": lambda expert: setattr(expert.outer, "weight", nn.Parameter(torch.zeros(8, 6))),
    "data": lambda expert: setattr(expert.inner.weight, "data", torch.zeros(6, 8)),
    "parametrisation": lambda expert: nn.utils.parametrizations.weight_norm(expert.inner),
    "activation": lambda expert: expert.add_module("more", nn.Tanh()),
    "gradient's hook": lambda expert: expert.inner.weight.register_hook(lambda gradient: 2 * gradient),
}


@pytest.mark.parametrize("replace", REPLACE)
@pytest.mark.parametrize("held", [True, False])
def test_replacing_in_one_of_a_stack_is_refused_where_it_would_be_lost(replace, held, batch):
    """Also where nobody holds the expert any more when the mixture is called."""
    moe = mixture()

    def replace_and_run(expert):
        REPLACE[replace](expert)
        if not held:
            del expert
        moe(batch()[0])

    with pytest.raises(mb.MoebiusError, match=FIX):
        replace_and_run(moe.experts[2])


class Negated(nn.Linear):
    def forward(self, input):
        return -super().forward(input)


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("pool", POOLS)
def test_another_class_of_a_part_of_one(pool, router, batch):
    """As in recipes that set `__class__` to keep a layer's parameters."""
    moe, x = mixture(pool, router), batch()[0]
    before = moe(x)
    moe.experts[2].outer.__class__ = Negated
    with mb.record(moe) as log:
        y = moe(x)
    torch.testing.assert_close(y, by_hand(log[""][-1].weights, moe.experts, x))
    assert not torch.allclose(y, before)


def test_replacing_one_of_a_stack_by_its_place_is_refused():
    moe = mixture()
    with pytest.raises(mb.MoebiusError, match=FIX):
        moe.experts[2] = mb.experts.FFN(8, 6)
    assert [expert is moe.experts[number] for number, expert in enumerate(moe.experts[1:3], 1)] == [True, True]


def test_threads_that_take_experts_while_others_call_them(batch):
    moe, x = mixture(), batch()[0]
    y = moe(x).detach()

    def work(number):
        for _ in range(50):
            expert = moe.experts[number]
            with mb.record(moe) as log:
                torch.testing.assert_close(moe(x), y)
            assert len(log[""]) == 1
            expert(x)
        return True

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(work, range(4)))


CHANGES = {
    "moved": lambda moe, state: moe.double().float(),
    "loaded": lambda moe, state: moe.load_state_dict(state),
    "assigned": lambda moe, state: moe.load_state_dict(state, assign=True),
    "assigned as of a list": lambda moe, state: moe.load_state_dict(mixture("list").state_dict(), assign=True),
    "copied": lambda moe, state: copy.deepcopy(moe),
}


@pytest.mark.parametrize("change", CHANGES)
def test_who_holds_an_expert_of_a_stack_sees_what_the_stack_holds(change, batch):
    moe, x = mixture(), batch()[0]
    held = moe.experts[2]
    moe(x)
    CHANGES[change](moe, {name: value + 1 for name, value in mixture().state_dict().items()})
    torch.testing.assert_close(held(x), moe.experts.unstacked()[2](x))
    with torch.no_grad():
        held.inner.weight.fill_(7.0)
    assert (moe.experts.inner_weight[2] == 7).all()
    held(x).sum().backward()
    assert moe.experts.inner_weight.grad[2].count_nonzero()


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("pool", POOLS)
def test_replacing_all_of_a_list_or_none(pool, router, batch):
    """The experts of what the fix makes are as of a list."""
    moe = mixture(pool, router)
    if pool == "stack":
        moe.experts = torch.nn.ModuleList(moe.experts.unstacked())
    moe.experts[2].inner = nn.Sequential(moe.experts[2].inner, nn.Tanh())
    x = batch()[0]
    with mb.record(moe) as log:
        y = moe(x)
    torch.testing.assert_close(y, by_hand(log[""][-1].weights, moe.experts, x))


def by_hand(weights, experts, x):
    return torch.stack([weights[:, e, None] * expert(x) for e, expert in enumerate(experts)]).sum(0)
