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


class TiedExpert(nn.Module):
    """An expert with arguments, a buffer that is saved, one that is not, and a part that stands in two places."""

    def __init__(self, width=5, scale=0.5):
        super().__init__()
        self.width, self.scale = width, scale
        self.first, self.tied = nn.Linear(4, 4), nn.Linear(4, 4)
        self.tied.weight = self.first.weight
        self.inner = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Linear(width, 3))
        self.alias = self.inner[2]
        self.register_buffer("shift", torch.randn(4))
        self.register_buffer("unsaved", torch.randn(4), persistent=False)

    def forward(self, x):
        return self.scale * self.inner(self.tied(self.first(x)) + self.shift + self.unsaved)


MAKERS = {
    "ffn": lambda: mb.experts.FFN(4, 5, "swiglu"),
    "conv": lambda: nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 2), nn.Flatten()),
    "tied": TiedExpert,
    "adapter": lambda: mb.experts.Adapter(nn.Linear(4, 2), classes=[2, 0], total=3, fill=0.0, frozen=True),
}
FOR_EVERY_EXPERT = pytest.mark.parametrize("name", MAKERS)


def make_experts(name, count=3, seed=0):
    torch.manual_seed(seed)
    return [MAKERS[name]() for _ in range(count)]


def make_mixture(experts, router=None, execution="auto"):
    torch.manual_seed(7)
    return mb.Mixture(mb.gates.Linear(4, len(experts)), experts, router, execution=execution)


def have_equal_states(left, right):
    left_state, right_state = list_state(left), list_state(right)
    return left_state.keys() == right_state.keys() and all(
        torch.equal(left_state[name], right_state[name]) for name in left_state
    )


def list_state(module):
    holders = tensor_holders(module)
    return {name: value if number is None else value[number] for name, (value, number) in holders.items()}


@FOR_EVERY_EXPERT
def test_its_state_is_that_of_a_list(name):
    assert have_equal_states(mb.Stack(make_experts(name)), nn.ModuleList(make_experts(name)))


@FOR_EVERY_EXPERT
def test_what_one_saved_the_other_loads(name):
    experts, file = make_experts(name), io.BytesIO()
    list_moe, stack_moe = (
        make_mixture(nn.ModuleList(experts)).eval(),
        make_mixture(mb.Stack(make_experts(name, seed=1))).eval(),
    )
    torch.save(list_moe.state_dict(), file)
    file.seek(0)
    stack_moe.load_state_dict(torch.load(file, weights_only=True))
    if name == "tied":
        stack_moe.experts.unsaved.copy_(torch.stack([expert.unsaved for expert in experts]))
    torch.testing.assert_close(stack_moe(X), list_moe(X))
    reloaded = make_mixture(make_experts(name, seed=2)).eval()
    reloaded.load_state_dict(stack_moe.state_dict())
    assert have_equal_states(reloaded, list_moe)


@FOR_EVERY_EXPERT
def test_experts_taken_from_it_and_its_copies_compute_the_same(name):
    experts = make_experts(name)
    stack = mb.Stack(experts)
    twin = copy.deepcopy(stack)
    for copies in (list(stack), [stack[number] for number in range(-3, 0)], stack.unstacked(), list(twin)):
        for copied, expert in zip(copies, experts, strict=True):
            assert type(copied) is type(expert)
            torch.testing.assert_close(copied.eval()(X), expert.eval()(X))
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert have_equal_states(stack, nn.ModuleList(experts))


@FOR_EVERY_EXPERT
@pytest.mark.parametrize("router", [mb.routers.Soft(), mb.routers.TopK(2), mb.routers.Argmax()])
@pytest.mark.parametrize("optimizer_class", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
def test_it_learns_as_separate_experts_do(name, router, optimizer_class):
    """So do experts without rows, which Adam goes on moving."""
    if name == "adapter" and isinstance(router, mb.routers.Argmax):
        pytest.skip("frozen experts and a gate without gradients leave nothing to learn")
    models = [
        make_mixture(experts, router, "loop").double() for experts in (make_experts(name), mb.Stack(make_experts(name)))
    ]
    for model in models:
        # Batch statistics of a row or two would be nearly 0, and gradients through them any number.
        model.experts.eval()
        optimizer = optimizer_class([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.1)
        for step in range(3):
            optimizer.zero_grad()
            model(X.double().roll(step)).square().sum().backward()
            optimizer.step()
    states = [list_state(model) for model in models]
    assert states[0].keys() == states[1].keys()
    torch.testing.assert_close(*states, rtol=1e-9, atol=1e-12)


def test_batch_statistics_are_those_of_separate_experts():
    models = [
        make_mixture(experts, execution="loop").train()
        for experts in (make_experts("tied"), mb.Stack(make_experts("tied")))
    ]
    for model in models:
        model(X)
    torch.testing.assert_close(*map(list_state, models))
    assert models[1].experts[2].inner[1].num_batches_tracked == 1


def test_formats_modes_and_frozen_parts_are_those_of_all():
    stack = mb.Stack(make_experts("ffn")).double().eval()
    assert {parameter.dtype for parameter in stack[1].parameters()} == {torch.float64}
    assert not any(part.training for part in stack[1].modules())
    stack.inner_weight.requires_grad_(False)
    stack.inner_bias.requires_grad_(False)
    assert [parameter.requires_grad for parameter in stack[1].parameters()] == [False, False, True, True]
    assert [parameter.requires_grad for parameter in stack.unstacked()[1].parameters()] == [False, False, True, True]
    assert all(parameter.is_leaf for parameter in stack.unstacked()[1].parameters())


def test_a_frozen_adapter_stays_in_evaluation():
    stack = mb.Stack(make_experts("adapter")).train()
    assert not stack[0].network.training
    assert not any(parameter.requires_grad for parameter in stack.parameters())


def count_values(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_few_tensors_and_the_memory_of_a_list():
    stack, experts = mb.Stack.of(MAKERS["ffn"], 6), make_experts("ffn", 6)
    assert len(list(stack.parameters())) == len(list(experts[0].parameters()))
    assert count_values(stack) == sum(map(count_values, experts))


def test_made_one_by_one_they_are_those_of_a_list():
    torch.manual_seed(0)
    assert have_equal_states(mb.Stack.of(TiedExpert, 3), mb.Stack(make_experts("tied")))


def test_gradients_reach_the_stack_through_an_expert_taken_from_it():
    stack = mb.Stack(make_experts("ffn"))
    stack[1](X).sum().backward()
    weight = stack.outer_weight
    assert weight.grad[1].count_nonzero() > 0
    assert weight.grad[[0, 2]].count_nonzero() == 0


def test_a_part_that_stands_in_two_places_does_so_in_each_expert():
    stack = mb.Stack(make_experts("tied"))
    assert stack.template.alias is stack.template.inner[2]
    assert [name for name in stack.state_dict() if "first" in name or "tied" in name] == [
        "first_weight",
        "first_bias",
        "tied_bias",
    ]
    expert = stack[0]
    assert expert.alias is expert.inner[2]
    alone = stack.unstacked()[0]
    assert alone.tied.weight is alone.first.weight


@FOR_EVERY_EXPERT
@pytest.mark.parametrize("assign", [True, False])
@pytest.mark.parametrize("containers", [(mb.Stack, list), (list, mb.Stack)], ids=["to a list", "to a stack"])
def test_what_is_loaded_has_a_storage_for_each_tensor(containers, assign, name):
    source, target = (
        make_mixture(containers[0](make_experts(name))),
        make_mixture(containers[1](make_experts(name, seed=1))),
    )
    target.load_state_dict(source.state_dict(), assign=assign)
    tensors = {id(tensor): tensor for tensor in target.state_dict(keep_vars=True).values()}.values()
    assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in tensors)
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == len(tensors)


class ReservedNames(nn.Module):
    """Its parameters have names of a stack's attributes, and one has the flat name of another."""

    def __init__(self):
        super().__init__()
        for name in ("template", "count", "part_tensors", "_views", "inner_weight"):
            self.register_parameter(name, nn.Parameter(torch.randn(4)))
        self.inner = nn.Linear(4, 4)

    def forward(self, x):
        return self.inner(x) + self.template * self.count + self.part_tensors * self._views + self.inner_weight


def test_names_that_a_stack_has_for_something_else():
    torch.manual_seed(0)
    experts = [ReservedNames() for _ in range(3)]
    moe, list_moe = make_mixture(mb.Stack(experts)), make_mixture(experts)
    torch.testing.assert_close(moe(X), list_moe(X))
    other = make_mixture([ReservedNames() for _ in range(3)])
    other.load_state_dict(moe.state_dict())
    torch.testing.assert_close(other(X), list_moe(X))
    moe.load_state_dict(make_mixture([ReservedNames() for _ in range(3)]).state_dict())
    moe.load_state_dict(other.state_dict())
    torch.testing.assert_close(moe(X), list_moe(X))


def test_missing_and_unknown_tensors_are_named_as_a_list_names_them():
    stack, list_moe = mb.Stack(make_experts("ffn")), nn.ModuleList(make_experts("ffn"))
    state = nn.ModuleList(make_experts("ffn", seed=1)).state_dict()
    del state["1.outer.bias"]
    state["2.colour"] = torch.zeros(1)
    state["7.outer.bias"] = torch.zeros(4)
    for module in (stack, list_moe):
        with pytest.raises(RuntimeError) as caught:
            module.load_state_dict(state)
        message = str(caught.value)
        assert 'Missing key(s) in state_dict: "1.outer.bias".' in message
        assert all(f'"{key}"' in message for key in ("2.colour", "7.outer.bias"))
    for module in (stack, list_moe):
        incompatible = module.load_state_dict(state, strict=False)
        assert incompatible.missing_keys == ["1.outer.bias"]
        assert sorted(incompatible.unexpected_keys) == ["2.colour", "7.outer.bias"]
    # The rest is taken, and what is missing stays.
    assert have_equal_states(stack, list_moe)


def test_a_tensor_of_another_shape_is_named():
    state = nn.ModuleList(make_experts("ffn")).state_dict() | {"1.outer.bias": torch.zeros(9)}
    with pytest.raises(
        RuntimeError,
        match=r"size mismatch for 1\.outer\.bias: copying a param with shape torch\.Size\(\[9\]\) from checkpoint",
    ):
        mb.Stack(make_experts("ffn")).load_state_dict(state)


def test_a_file_in_another_format_is_taken_over_or_converted():
    state = mb.Stack(make_experts("ffn")).double().state_dict()
    stack = mb.Stack(make_experts("ffn", seed=1))
    stack.load_state_dict(state)
    assert stack.inner_weight.dtype == torch.float32
    stack.load_state_dict(state, assign=True)
    assert stack.inner_weight.dtype == torch.float64
    assert isinstance(stack.inner_weight, nn.Parameter)


def test_who_holds_the_values_of_a_name():
    stack = mb.Stack(make_experts("ffn"))
    holders = tensor_holders(nn.Sequential(nn.Linear(2, 2), stack))
    assert list(holders) == list(nn.Sequential(nn.Linear(2, 2), nn.ModuleList(make_experts("ffn"))).state_dict())
    stacked, number = holders["1.2.inner.bias"]
    assert stacked is stack.inner_bias
    assert number == 2
    assert holders["0.weight"][1] is None


def test_recorded_called_and_inside_another_mixture():
    stack = mb.Stack(make_experts("ffn", 2))
    inner = make_mixture(stack, mb.routers.TopK(1))
    outer = make_mixture([inner, mb.experts.FFN(4, 5)], mb.routers.Argmax())
    plain = make_mixture([make_mixture(stack.unstacked(), mb.routers.TopK(1)), outer.experts[1]], mb.routers.Argmax())
    for moe in (outer, plain):
        moe.gate.linear.bias.data = torch.tensor([0.2, 0.0])
    y, log = mb.call(outer, X)
    expected, plain_log = mb.call(plain, X)
    torch.testing.assert_close(y, expected)
    assert log.keys() == plain_log.keys() == {"", "experts.0"}
    torch.testing.assert_close(log["experts.0"][0].weights, plain_log["experts.0"][0].weights)
    assert torch.equal(log["experts.0"][0].rows, plain_log["experts.0"][0].rows)
    with mb.record(outer, outputs=True) as log:
        outer(X)
    assert log["experts.0"][0].outputs.shape[1:] == (2, 4)


SHARED_LAYER = nn.Linear(4, 4)


def make_partly_frozen():
    return [nn.Linear(4, 3).requires_grad_(False), nn.Linear(4, 3)]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: [nn.Linear(4, 3), nn.Linear(4, 2)], "their parameters' shapes differ"),
        (
            lambda: [nn.Linear(4, 3), nn.Linear(4, 3).bfloat16()],
            "their tensors' formats, devices or kinds differ",
        ),
        (lambda: [nn.Linear(4, 3), mb.experts.Linear(4, 3)], "their classes differ"),
        (lambda: [nn.Sequential(SHARED_LAYER, nn.Linear(4, 3)) for _ in range(2)], "they share a part"),
        (lambda: [SHARED_LAYER, SHARED_LAYER], "they share a part"),
        (make_partly_frozen, "in some of them parameters are frozen"),
        (lambda: [make_mixture(make_experts("ffn", 2)) for _ in range(2)], "Soft inside is a part of a mixture"),
        (lambda: [nn.Sequential(mb.Stack(make_experts("ffn", 2)))], "Stack inside is a part of a mixture"),
    ],
)
def test_what_cannot_be_stacked(make, reason):
    experts = make()
    assert unstackable_reason(experts).startswith(reason)
    with pytest.raises(ArgumentError, match=f"^experts: a stack needs equal experts: {reason}") as caught:
        mb.Stack(experts)
    assert caught.value.fix == "mb.Mixture(gate, list(experts))"
    with pytest.raises(ArgumentError, match=reason):
        mb.Stack.of(iter(experts).__next__, len(experts))


def make_expert_with(make_attribute):
    expert = nn.Linear(4, 3)
    expert.extra = make_attribute(expert)
    return expert


@pytest.mark.parametrize(
    "make_attribute",
    [
        lambda expert: [SHARED_LAYER],
        lambda expert: {"a": (SHARED_LAYER.weight,)},
        lambda expert: lambda x: expert(x),
    ],
)
def test_what_would_be_a_copy_in_a_stack(make_attribute):
    """Parameters that an expert reaches past its parts, and functions that always compute with the first expert's."""
    with pytest.raises(ArgumentError, match="extra leads to parameters that are not theirs"):
        mb.Stack([make_expert_with(make_attribute)])


@pytest.mark.parametrize("make_attribute", [lambda expert: [expert], lambda expert: (nn.ReLU(), 3), lambda expert: len])
def test_attributes_that_lead_to_an_experts_own_parts_or_to_none(make_attribute):
    assert unstackable_reason([make_expert_with(make_attribute)]) is None


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: mb.Stack([]), "experts: needs at least one expert"),
        (lambda: mb.Stack.of(MAKERS["ffn"], 0), "count: needs"),
    ],
)
def test_no_experts(build, message):
    with pytest.raises(ArgumentError) as caught:
        build()
    assert str(caught.value).startswith(message)


def test_it_is_not_called_by_itself_and_has_no_expert_beyond_its_last():
    stack = mb.Stack(make_experts("ffn"))
    with pytest.raises(TypeError, match=r"mb\.Mixture\(gate, stack\)"):
        stack(X)
    for number in (3, -4):
        with pytest.raises(IndexError):
            stack[number]


def test_no_tensor_takes_the_name_of_what_a_stack_has_itself():
    # transformers, where another test has imported it, gives every module a `smart_apply`.
    attributes = set(dir(mb.Stack([nn.Linear(1, 1)]))) - {"weight", "bias", "smart_apply"}
    assert {name for name in attributes if not name.startswith("__")} <= _RESERVED_NAMES


def test_tensors_whose_flat_names_are_the_same_have_two():
    class EqualFlatNames(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.a_b = nn.Module(), nn.Parameter(torch.randn(4))
            self.a.b = nn.Parameter(torch.randn(4))

        def forward(self, x):
            return x * self.a_b + self.a.b

    experts = [EqualFlatNames() for _ in range(2)]
    stack = mb.Stack(experts)
    assert sorted(stack.state_dict()) == ["a_b", "a_b_"]
    torch.testing.assert_close(make_mixture(stack)(X), make_mixture(experts)(X))
