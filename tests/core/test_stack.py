"""A stack is the list of its experts, in fewer tensors."""

import copy
import io

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.core.stack import unstackable_reason
from moebius.core.stack_state import _RESERVED_NAMES
from moebius.kit.errors import ArgumentError
from moebius.storage.tensors import tensor_holders

X = torch.linspace(-1, 1, 28).view(7, 4)


class Own(nn.Module):
    """An expert with arguments, a buffer that is saved, one that is not, and a part that stands in two places."""

    def __init__(self, width=5, scale=0.5):
        super().__init__()
        self.width, self.scale = width, scale
        self.first, self.again = nn.Linear(4, 4), nn.Linear(4, 4)
        self.again.weight = self.first.weight
        self.inner = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Linear(width, 3))
        self.twice = self.inner[2]
        self.register_buffer("shift", torch.randn(4))
        self.register_buffer("fleeting", torch.randn(4), persistent=False)

    def forward(self, x):
        return self.scale * self.inner(self.again(self.first(x)) + self.shift + self.fleeting)


MAKE = {
    "ffn": lambda: mb.experts.FFN(4, 5, "swiglu"),
    "conv": lambda: nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 2), nn.Flatten()),
    "own": Own,
    "adapter": lambda: mb.experts.Adapter(nn.Linear(4, 2), classes=[2, 0], total=3, fill=0.0, frozen=True),
}
ALL = pytest.mark.parametrize("name", MAKE)


def made(name, count=3, seed=0):
    torch.manual_seed(seed)
    return [MAKE[name]() for _ in range(count)]


def mixture(experts, router=None, execution="auto"):
    torch.manual_seed(7)
    return mb.Mixture(mb.gates.Linear(4, len(experts)), experts, router, execution=execution)


def equal_states(one, other):
    one, other = of_a_list(one), of_a_list(other)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def of_a_list(module):
    return {name: value if e is None else value[e] for name, (value, e) in tensor_holders(module).items()}


@ALL
def test_its_state_is_that_of_a_list(name):
    assert equal_states(mb.Stack(made(name)), nn.ModuleList(made(name)))


@ALL
def test_what_one_saved_the_other_loads(name):
    experts, file = made(name), io.BytesIO()
    listed, stack = mixture(nn.ModuleList(experts)).eval(), mixture(mb.Stack(made(name, seed=1))).eval()
    torch.save(listed.state_dict(), file)
    file.seek(0)
    stack.load_state_dict(torch.load(file, weights_only=True))
    fleeting = [expert for expert in experts if isinstance(expert, Own)]
    if fleeting:
        stack.experts.fleeting.copy_(torch.stack([expert.fleeting for expert in fleeting]))
    torch.testing.assert_close(stack(X), listed(X))
    back = mixture(made(name, seed=2)).eval()
    back.load_state_dict(stack.state_dict())
    assert equal_states(back, listed)


@ALL
def test_experts_taken_from_it_and_its_copies_compute_the_same(name):
    experts = made(name)
    stack = mb.Stack(experts)
    twin = copy.deepcopy(stack)
    for other in (list(stack), [stack[number] for number in range(-3, 0)], stack.unstacked(), list(twin)):
        for one, expert in zip(other, experts, strict=True):
            assert type(one) is type(expert)
            torch.testing.assert_close(one.eval()(X), expert.eval()(X))
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert equal_states(stack, nn.ModuleList(experts))


@ALL
@pytest.mark.parametrize("router", [mb.routers.Soft(), mb.routers.TopK(2), mb.routers.Argmax()])
@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
def test_it_learns_as_separate_experts_do(name, router, optimizer):
    """Also those that have no rows, which adam moves on."""
    if name == "adapter" and isinstance(router, mb.routers.Argmax):
        pytest.skip("frozen experts and a gate without gradients leave nothing to learn")
    models = [mixture(experts, router, "loop").double() for experts in (made(name), mb.Stack(made(name)))]
    for model in models:
        # Batch statistics of a row or two would be nearly 0, and gradients through them any number.
        model.experts.eval()
        steps = optimizer([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.1)
        for step in range(3):
            steps.zero_grad()
            model(X.double().roll(step)).square().sum().backward()
            steps.step()
    states = [of_a_list(model) for model in models]
    assert states[0].keys() == states[1].keys()
    torch.testing.assert_close(*states, rtol=1e-9, atol=1e-12)


def test_batch_statistics_are_those_of_separate_experts():
    models = [mixture(experts, execution="loop").train() for experts in (made("own"), mb.Stack(made("own")))]
    for model in models:
        model(X)
    torch.testing.assert_close(*map(of_a_list, models))
    assert models[1].experts[2].inner[1].num_batches_tracked == 1


def test_formats_modes_and_frozen_parts_are_those_of_all():
    stack = mb.Stack(made("ffn")).double().eval()
    assert {parameter.dtype for parameter in stack[1].parameters()} == {torch.float64}
    assert not any(part.training for part in stack[1].modules())
    stack.inner_weight.requires_grad_(False)
    stack.inner_bias.requires_grad_(False)
    assert [parameter.requires_grad for parameter in stack[1].parameters()] == [False, False, True, True]
    assert [parameter.requires_grad for parameter in stack.unstacked()[1].parameters()] == [False, False, True, True]
    assert all(parameter.is_leaf for parameter in stack.unstacked()[1].parameters())


def test_a_frozen_adapter_stays_in_evaluation():
    stack = mb.Stack(made("adapter")).train()
    assert not stack[0].network.training
    assert not any(parameter.requires_grad for parameter in stack.parameters())


def test_few_tensors_and_the_memory_of_a_list():
    stack, experts = mb.Stack.of(MAKE["ffn"], 6), made("ffn", 6)
    assert len(list(stack.parameters())) == len(list(experts[0].parameters()))
    assert sum(p.numel() for p in stack.parameters()) == sum(p.numel() for one in experts for p in one.parameters())


def test_made_one_by_one_they_are_those_of_a_list():
    torch.manual_seed(0)
    assert equal_states(mb.Stack.of(Own, 3), mb.Stack(made("own")))


def test_gradients_reach_the_stack_through_an_expert_taken_from_it():
    stack = mb.Stack(made("ffn"))
    stack[1](X).sum().backward()
    weight = stack.outer_weight
    assert weight.grad[1].count_nonzero() > 0
    assert weight.grad[[0, 2]].count_nonzero() == 0


def test_a_part_that_stands_in_two_places_does_so_in_each_expert():
    stack = mb.Stack(made("own"))
    assert stack.template.twice is stack.template.inner[2]
    assert [name for name in stack.state_dict() if "first" in name or "again" in name] == [
        "first_weight",
        "first_bias",
        "again_bias",
    ]
    expert = stack[0]
    assert expert.twice is expert.inner[2]
    alone = stack.unstacked()[0]
    assert alone.again.weight is alone.first.weight


@ALL
@pytest.mark.parametrize("assign", [True, False])
@pytest.mark.parametrize("kinds", [(mb.Stack, list), (list, mb.Stack)], ids=["to a list", "to a stack"])
def test_what_is_loaded_has_a_storage_for_each_tensor(kinds, assign, name):
    one, other = mixture(kinds[0](made(name))), mixture(kinds[1](made(name, seed=1)))
    other.load_state_dict(one.state_dict(), assign=assign)
    tensors = {id(tensor): tensor for tensor in other.state_dict(keep_vars=True).values()}.values()
    assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in tensors)
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == len(tensors)


class Named(nn.Module):
    """Its parameters have names that a stack has for something else, and that another's place makes."""

    def __init__(self):
        super().__init__()
        for name in ("template", "count", "part_tensors", "_views", "inner_weight"):
            self.register_parameter(name, nn.Parameter(torch.randn(4)))
        self.inner = nn.Linear(4, 4)

    def forward(self, x):
        return self.inner(x) + self.template * self.count + self.part_tensors * self._views + self.inner_weight


def test_names_that_a_stack_has_for_something_else():
    torch.manual_seed(0)
    experts = [Named() for _ in range(3)]
    moe, listed = mixture(mb.Stack(experts)), mixture(experts)
    torch.testing.assert_close(moe(X), listed(X))
    other = mixture([Named() for _ in range(3)])
    other.load_state_dict(moe.state_dict())
    torch.testing.assert_close(other(X), listed(X))
    moe.load_state_dict(mixture([Named() for _ in range(3)]).state_dict())
    moe.load_state_dict(other.state_dict())
    torch.testing.assert_close(moe(X), listed(X))


def test_missing_and_unknown_tensors_are_named_as_a_list_names_them():
    stack, listed = mb.Stack(made("ffn")), nn.ModuleList(made("ffn"))
    state = nn.ModuleList(made("ffn", seed=1)).state_dict()
    del state["1.outer.bias"]
    state["2.colour"] = torch.zeros(1)
    state["7.outer.bias"] = torch.zeros(4)
    for module in (stack, listed):
        with pytest.raises(RuntimeError) as caught:
            module.load_state_dict(state)
        said = str(caught.value)
        assert 'Missing key(s) in state_dict: "1.outer.bias".' in said
        assert all(f'"{key}"' in said for key in ("2.colour", "7.outer.bias"))
    for module in (stack, listed):
        found = module.load_state_dict(state, strict=False)
        assert found.missing_keys == ["1.outer.bias"]
        assert sorted(found.unexpected_keys) == ["2.colour", "7.outer.bias"]
    # The rest is taken, and what is missing stays.
    assert equal_states(stack, listed)


def test_a_tensor_of_another_shape_is_named():
    state = nn.ModuleList(made("ffn")).state_dict() | {"1.outer.bias": torch.zeros(9)}
    with pytest.raises(
        RuntimeError,
        match=r"size mismatch for 1\.outer\.bias: copying a param with shape torch\.Size\(\[9\]\) from checkpoint",
    ):
        mb.Stack(made("ffn")).load_state_dict(state)


def test_a_file_in_another_format_is_taken_over_or_converted():
    state = mb.Stack(made("ffn")).double().state_dict()
    stack = mb.Stack(made("ffn", seed=1))
    stack.load_state_dict(state)
    assert stack.inner_weight.dtype == torch.float32
    stack.load_state_dict(state, assign=True)
    assert stack.inner_weight.dtype == torch.float64
    assert isinstance(stack.inner_weight, nn.Parameter)


def test_who_holds_the_values_of_a_name():
    stack = mb.Stack(made("ffn"))
    held = tensor_holders(nn.Sequential(nn.Linear(2, 2), stack))
    assert list(held) == list(nn.Sequential(nn.Linear(2, 2), nn.ModuleList(made("ffn"))).state_dict())
    whole, number = held["1.2.inner.bias"]
    assert whole is stack.inner_bias
    assert number == 2
    assert held["0.weight"][1] is None


def test_recorded_called_and_inside_another_mixture():
    stack = mb.Stack(made("ffn", 2))
    inner = mixture(stack, mb.routers.TopK(1))
    outer = mixture([inner, mb.experts.FFN(4, 5)], mb.routers.Argmax())
    plain = mixture([mixture(stack.unstacked(), mb.routers.TopK(1)), outer.experts[1]], mb.routers.Argmax())
    for one in (outer, plain):
        one.gate.linear.bias.data = torch.tensor([0.2, 0.0])
    y, log = mb.call(outer, X)
    expected, plain_log = mb.call(plain, X)
    torch.testing.assert_close(y, expected)
    assert log.keys() == plain_log.keys() == {"", "experts.0"}
    torch.testing.assert_close(log["experts.0"][0].weights, plain_log["experts.0"][0].weights)
    assert torch.equal(log["experts.0"][0].rows, plain_log["experts.0"][0].rows)
    with mb.record(outer, outputs=True) as log:
        outer(X)
    assert log["experts.0"][0].outputs.shape[1:] == (2, 4)


SHARED = nn.Linear(4, 4)


def frozen_and_not():
    return [nn.Linear(4, 3).requires_grad_(False), nn.Linear(4, 3)]


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: [nn.Linear(4, 3), nn.Linear(4, 2)], "their parameters' shapes differ"),
        (
            lambda: [nn.Linear(4, 3), nn.Linear(4, 3).bfloat16()],
            "their tensors' formats, devices or kinds differ",
        ),
        (lambda: [nn.Linear(4, 3), mb.experts.Linear(4, 3)], "their classes differ"),
        (lambda: [nn.Sequential(SHARED, nn.Linear(4, 3)) for _ in range(2)], "they share a part"),
        (lambda: [SHARED, SHARED], "they share a part"),
        (frozen_and_not, "in some of them parameters are frozen"),
        (lambda: [mixture(made("ffn", 2)) for _ in range(2)], "Soft inside is a part of a mixture"),
        (lambda: [nn.Sequential(mb.Stack(made("ffn", 2)))], "Stack inside is a part of a mixture"),
    ],
)
def test_what_cannot_be_stacked(make, why):
    experts = make()
    assert unstackable_reason(experts).startswith(why)
    with pytest.raises(ArgumentError, match=f"^experts: a stack needs equal experts: {why}") as caught:
        mb.Stack(experts)
    assert caught.value.fix == "a list of them"
    with pytest.raises(ArgumentError, match=why):
        mb.Stack.of(iter(experts).__next__, len(experts))


def with_attribute(value):
    expert = nn.Linear(4, 3)
    expert.beside = value(expert)
    return expert


@pytest.mark.parametrize(
    "value",
    [
        lambda expert: [SHARED],
        lambda expert: {"a": (SHARED.weight,)},
        lambda expert: lambda x: expert(x),
    ],
)
def test_what_would_be_a_copy_in_a_stack(value):
    """Parameters that an expert reaches past its parts, and functions that always compute with the first expert's."""
    with pytest.raises(ArgumentError, match="beside leads to parameters that are not theirs"):
        mb.Stack([with_attribute(value)])


@pytest.mark.parametrize("value", [lambda expert: [expert], lambda expert: (nn.ReLU(), 3), lambda expert: len])
def test_attributes_that_lead_to_an_experts_own_parts_or_to_none(value):
    assert unstackable_reason([with_attribute(value)]) is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: mb.Stack([]), "experts: needs at least one expert"),
        (lambda: mb.Stack.of(MAKE["ffn"], 0), "count: needs"),
    ],
)
def test_no_experts(wrong, said):
    with pytest.raises(ArgumentError) as caught:
        wrong()
    assert str(caught.value).startswith(said)


def test_it_is_not_called_by_itself_and_has_no_expert_beyond_its_last():
    stack = mb.Stack(made("ffn"))
    with pytest.raises(TypeError, match=r"mb\.Mixture\(gate, stack\)"):
        stack(X)
    for number in (3, -4):
        with pytest.raises(IndexError):
            stack[number]


def test_no_tensor_takes_the_name_of_what_a_stack_has_itself():
    own = set(dir(mb.Stack([nn.Linear(1, 1)]))) - {"weight", "bias"}
    assert {name for name in own if not name.startswith("__")} <= _RESERVED_NAMES


def test_tensors_whose_flat_names_are_the_same_have_two():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.a_b = nn.Module(), nn.Parameter(torch.randn(4))
            self.a.b = nn.Parameter(torch.randn(4))

        def forward(self, x):
            return x * self.a_b + self.a.b

    experts = [Named() for _ in range(2)]
    stack = mb.Stack(experts)
    assert sorted(stack.state_dict()) == ["a_b", "a_b_"]
    torch.testing.assert_close(mixture(stack)(X), mixture(experts)(X))
