"""`Mixture`: gate, router, experts and combine as one module, also inside each other."""

import copy
import io

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.core.row_context import current_context
from moebius.kit.errors import ArgumentError, UnknownKindError
from moebius.storage.tensors import tensor_holders

X = torch.linspace(-1, 1, 24, dtype=torch.float64).view(6, 4)
DOMAIN = torch.tensor([0, 1, 1, 0, 1, 0])


def make_linears(count=2, features=4, outputs=3):
    return [nn.Linear(features, outputs) for _ in range(count)]


def make_mixture(count=2, **options):
    torch.manual_seed(count)
    return mb.Mixture(mb.gates.Linear(4, count), make_linears(count), **options).double()


def sum_by_hand(moe, x):
    outputs = torch.stack([expert(x) for expert in moe.experts], -2)
    return (moe.gate(x).softmax(-1).unsqueeze(-1) * outputs).sum(-2)


class RowCounter(nn.Module):
    """Calls a module, and keeps how many rows each call had."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.row_counts = inner, []

    def forward(self, x):
        self.row_counts.append(len(x))
        return self.inner(x)


@pytest.mark.parametrize("execution", ["auto", "loop", "stacked"])
def test_it_is_the_weighted_sum_of_its_experts(execution):
    moe = make_mixture(3, execution=execution)
    torch.testing.assert_close(moe(X), sum_by_hand(moe, X))


def test_a_mixture_of_logits():
    moe = make_mixture()
    logits = sum(moe.gate(X).softmax(-1)[:, number, None] * moe.experts[number](X) for number in range(2))
    torch.testing.assert_close(moe(X).softmax(-1), logits.softmax(-1))


def test_a_mixture_of_probabilities():
    moe = make_mixture(combine=mb.LogMixture())
    probs = sum(moe.gate(X).softmax(-1)[:, number, None] * moe.experts[number](X).softmax(-1) for number in range(2))
    torch.testing.assert_close(moe(X), probs.log())


def test_one_expert_is_itself():
    (expert,) = make_linears(1)
    moe = mb.Mixture(mb.gates.Uniform(1), [expert]).double()
    torch.testing.assert_close(moe(X), expert(X))
    torch.testing.assert_close(
        mb.Mixture(mb.gates.Uniform(1), [expert], combine=mb.LogMixture())(X), expert(X).log_softmax(-1)
    )


def test_a_uniform_gate_is_the_mean():
    experts = make_linears(3)
    moe = mb.Mixture(mb.gates.Uniform(3), experts).double()
    torch.testing.assert_close(moe(X), torch.stack([expert(X) for expert in experts]).mean(0))


def test_any_modules_also_unlike_ones():
    gate = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    experts = [nn.Linear(4, 3), nn.Sequential(nn.ReLU(), nn.Linear(4, 3)), mb.experts.MLP(4, 3, [7])]
    moe = mb.Mixture(gate, experts).double()
    torch.testing.assert_close(moe(X), sum_by_hand(moe, X))
    argmax_moe = mb.Mixture(gate, experts, mb.routers.Argmax())
    for row, expert in enumerate(gate(X).argmax(-1).tolist()):
        torch.testing.assert_close(argmax_moe(X)[row], experts[expert](X[row]))


def test_images_are_rows_and_so_are_tokens():
    images = torch.rand(5, 1, 8, 8)
    moe = mb.Mixture(mb.gates.Conv(1, 8, 2, [2], [3]), [mb.experts.Conv(1, 8, 3, [2], [4]) for _ in range(2)])
    with mb.record(moe) as log:
        assert moe(images).shape == (5, 3)
    assert log[""][0].weights.shape == (5, 2)
    tokens = torch.randn(2, 7, 4).double()
    moe = make_mixture(router=mb.routers.Argmax())
    y, log = mb.call(moe, tokens)
    assert log[""][0].weights.shape == (14, 2)
    torch.testing.assert_close(y, moe(tokens.flatten(0, 1)).view(2, 7, 3))


@pytest.mark.parametrize("router", [mb.routers.Soft(), mb.routers.Argmax()])
def test_no_rows(router):
    assert make_mixture(router=router)(X[:0]).shape == (0, 3)


def test_sequences_as_rows_where_the_gate_sees_them_whole():
    class MeanGate(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 2)

        def forward(self, x):
            return self.linear(x.mean(1))

    sequences = torch.randn(2, 2, 4)
    moe = mb.Mixture(MeanGate(), [mb.experts.Linear(4, 3) for _ in range(2)])
    weights = moe.gate(sequences).softmax(-1)
    by_hand = sum(weights[:, number, None, None] * moe.experts[number](sequences) for number in range(2))
    torch.testing.assert_close(moe(sequences), by_hand)


def test_a_gate_of_the_wrong_width():
    moe = mb.Mixture(mb.gates.Linear(4, 3), make_linears(2)).double()
    with pytest.raises(
        ArgumentError, match=r"^gate: must give one score for each of the 2 experts, got \(6, 3\)"
    ) as caught:
        moe(X)
    assert caught.value.fix == "gate=mb.gates.Linear(features, experts=2)"


def test_a_row_without_a_batch():
    with pytest.raises(ArgumentError, match=r"gate: must keep the first axes of its input, of shape \(2,\)"):
        mb.Mixture(nn.Identity(), make_linears(2, 2))(torch.zeros(2))


def test_a_gate_that_loses_rows():
    class HalvingGate(nn.Module):
        def forward(self, x):
            return x[::2, :2]

    with pytest.raises(ArgumentError, match=r"of shape \(6, 4\), as rows, got \(3, 2\)"):
        mb.Mixture(HalvingGate(), make_linears(2)).double()(X)


def test_no_experts():
    with pytest.raises(ArgumentError, match="experts: needs at least one expert"):
        mb.Mixture(mb.gates.Linear(4, 1), [])


def test_an_unknown_execution():
    with pytest.raises(UnknownKindError, match="did you mean stacked"):
        mb.Mixture(mb.gates.Linear(4, 2), make_linears(), execution="stackd")


def test_context_by_argument_and_by_block():
    moe = mb.Mixture(mb.gates.Domain(2, 2), make_linears(), mb.routers.Argmax()).double()
    by_hand = torch.stack([moe.experts[number](x) for number, x in zip(DOMAIN.tolist(), X, strict=True)])
    torch.testing.assert_close(moe(X, {"domain": DOMAIN}), by_hand)
    with mb.context(domain=DOMAIN):
        torch.testing.assert_close(moe(X), by_hand)
        torch.testing.assert_close(moe(X, {"domain": 1 - DOMAIN}), moe(X, context={"domain": 1 - DOMAIN}))
    with pytest.raises(ArgumentError, match="the domain gate needs each row's domain"):
        moe(X)


def make_argmax_mixture(gate, experts):
    return mb.Mixture(gate, experts, mb.routers.Argmax()).double()


def test_a_mixture_inside_a_branch_sees_just_its_rows():
    torch.manual_seed(0)
    inner = mb.Mixture(mb.gates.Linear(4, 2), [RowCounter(expert) for expert in make_linears()])
    outer = make_argmax_mixture(mb.gates.Domain(2, 2), [nn.Linear(4, 3), inner])
    y, log = mb.call(outer, X, {"domain": DOMAIN})
    rows = DOMAIN.nonzero().squeeze(1)
    assert log["experts.1"][0].rows.tolist() == rows.tolist() == [1, 2, 4]
    assert log[""][0].rows is None
    assert [expert.row_counts for expert in inner.experts] == [[3], [3]]
    torch.testing.assert_close(y[rows], sum_by_hand(inner, X[rows]))
    torch.testing.assert_close(y[DOMAIN == 0], outer.experts[0](X[DOMAIN == 0]))


@pytest.mark.parametrize("wrapped", [False, True])
def test_context_inside_a_branch_is_that_of_its_rows(wrapped):
    torch.manual_seed(0)
    inner = make_argmax_mixture(mb.gates.Domain(3, 3), make_linears(3))
    branch = nn.Sequential(nn.Identity(), nn.Sequential(inner)) if wrapped else inner
    gate = nn.Linear(4, 2)
    outer = make_argmax_mixture(gate, [nn.Linear(4, 3), branch])
    domain = torch.tensor([2, 0, 1, 2, 1, 0])
    y = outer(X, {"domain": domain})
    chosen = gate(X).argmax(-1)
    assert 0 < chosen.sum() < 6
    for row in range(6):
        expert = inner.experts[domain[row]] if chosen[row] else outer.experts[0]
        torch.testing.assert_close(y[row], expert(X[row]))


def test_three_levels_of_hard_choices():
    torch.manual_seed(1)
    x = torch.randn(40, 4).double()
    lowest = make_argmax_mixture(nn.Linear(4, 2), make_linears())
    middle = make_argmax_mixture(nn.Linear(4, 2), [lowest, nn.Linear(4, 3)])
    top = make_argmax_mixture(nn.Linear(4, 2), [nn.Linear(4, 3), middle])
    y, log = mb.call(top, x)
    paths = {"": top, "experts.1": middle, "experts.1.experts.0": lowest}
    assert set(log) == set(paths)
    rows = torch.arange(40)
    for path, moe in paths.items():
        (routing,) = log[path]
        assert path == "" or routing.rows.tolist() == rows.tolist()
        chosen = moe.gate(x[rows]).argmax(-1)
        assert routing.selection.expert_A.tolist() == chosen.tolist()
        for expert, branch in enumerate(moe.experts):
            if not isinstance(branch, mb.Mixture):
                torch.testing.assert_close(y[rows[chosen == expert]], branch(x[rows[chosen == expert]]))
        mixture_numbers = [number for number, branch in enumerate(moe.experts) if isinstance(branch, mb.Mixture)]
        rows = rows[chosen == mixture_numbers[0]] if mixture_numbers else rows
    assert 0 < len(rows) < 20


def test_a_soft_tree_is_the_product_of_its_weights():
    torch.manual_seed(0)
    inner = [mb.Mixture(nn.Linear(4, 2), make_linears()) for _ in range(2)]
    outer = mb.Mixture(nn.Linear(4, 2), inner).double()
    by_hand = 0
    for branch in range(2):
        for leaf in range(2):
            weight = outer.gate(X).softmax(-1)[:, branch] * inner[branch].gate(X).softmax(-1)[:, leaf]
            by_hand = by_hand + weight.unsqueeze(-1) * inner[branch].experts[leaf](X)
    torch.testing.assert_close(outer(X), by_hand)


def test_a_tree_of_probabilities():
    torch.manual_seed(0)
    inner = mb.Mixture(nn.Linear(4, 2), make_linears(), combine=mb.LogMixture())
    outer = mb.Mixture(nn.Linear(4, 2), [inner, nn.Linear(4, 3)], combine=mb.LogMixture()).double()
    weights = outer.gate(X).softmax(-1)
    probs = weights[:, :1] * inner(X).exp() + weights[:, 1:] * outer.experts[1](X).softmax(-1)
    torch.testing.assert_close(outer(X), probs.log())


def test_tokens_get_their_sequences_context_at_every_level():
    torch.manual_seed(0)
    tokens, domain = torch.randn(3, 5, 4).double(), torch.tensor([1, 0, 1])
    inner = make_argmax_mixture(mb.gates.Domain(2, 2), make_linears())
    outer = make_argmax_mixture(nn.Linear(4, 2), [nn.Linear(4, 3), inner])
    y, log = mb.call(outer, tokens, {"domain": domain})
    chosen = outer.gate(tokens).argmax(-1)
    assert log["experts.1"][0].rows.tolist() == chosen.flatten().nonzero().squeeze(1).tolist()
    for sequence in range(3):
        for token in range(5):
            expert = inner.experts[domain[sequence]] if chosen[sequence, token] else outer.experts[0]
            torch.testing.assert_close(y[sequence, token], expert(tokens[sequence, token]))


def test_an_idle_branch_has_gradients_of_zero_at_every_level():
    inner = mb.Mixture(nn.Linear(4, 2), make_linears())
    outer = make_argmax_mixture(mb.gates.Domain(2, 2), [nn.Linear(4, 3), inner])
    outer(X, {"domain": torch.zeros(6, dtype=torch.long)}).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.count_nonzero() == 0 for parameter in inner.parameters())


def test_names_of_the_parameters():
    moe = mb.Mixture(mb.gates.Linear(4, 2), [nn.Linear(4, 3), mb.Mixture(nn.Linear(4, 1), make_linears(1))])
    assert list(moe.state_dict()) == [
        *("gate.linear.weight", "gate.linear.bias", "experts.0.weight", "experts.0.bias"),
        *("experts.1.gate.weight", "experts.1.gate.bias", "experts.1.experts.0.weight", "experts.1.experts.0.bias"),
    ]


@pytest.mark.parametrize("combine", [None, mb.LogMixture()])
def test_copied_saved_and_loaded_it_gives_the_same(combine):
    moe, target = (
        make_mixture(combine=combine),
        mb.Mixture(mb.gates.Linear(4, 2), make_linears(), combine=combine).double(),
    )
    twin = copy.deepcopy(moe)
    assert torch.equal(twin(X), moe(X))
    file = io.BytesIO()
    torch.save(moe.state_dict(), file)
    file.seek(0)
    target.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(target(X), moe(X))
    with torch.no_grad():
        twin.gate.linear.weight.add_(1)
    assert not torch.equal(twin(X), moe(X))


@pytest.mark.parametrize("combine", [mb.WeightedSum(), mb.LogMixture()])
@pytest.mark.parametrize("router", [mb.routers.Soft(), mb.routers.Argmax()])
@pytest.mark.parametrize("make", [nn.Linear, mb.experts.Linear])
def test_precisions(combine, router, make):
    torch.manual_seed(0)
    moe = mb.Mixture(mb.gates.Linear(4, 2), [make(4, 3) for _ in range(2)], router, combine)
    single, x = moe(X.float()), X.float()
    assert single.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        rounded = moe(x)
    assert rounded.dtype == (torch.float32 if isinstance(combine, mb.LogMixture) else torch.bfloat16)
    torch.testing.assert_close(rounded.float(), single, rtol=0.05, atol=0.05)
    rounded.float().sum().backward()
    assert all(parameter.grad.dtype == torch.float32 for expert in moe.experts for parameter in expert.parameters())
    double = moe.double()(X)
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single)


def test_gradients_are_those_of_finite_differences():
    moe = make_mixture(combine=mb.LogMixture())
    names = [name for name, _ in moe.named_parameters()]

    def run(x, *values):
        return torch.func.functional_call(moe, dict(zip(names, values, strict=True)), (x,))

    inputs = [X.clone(), *(parameter.detach() for parameter in moe.parameters())]
    assert torch.autograd.gradcheck(run, [value.requires_grad_() for value in inputs])


class AuxGate(nn.Module):
    """Scores, and as aux each row's sum and the scores times two."""

    gives_aux = True

    def __init__(self, outputs=2):
        super().__init__()
        self.linear = nn.Linear(4, outputs)

    def forward(self, x):
        scores = self.linear(x)
        return scores, {"sum": x.sum(-1), "twice": 2 * scores}


class ContextAuxGate(AuxGate):
    """The same, from a forward that takes a context."""

    def forward(self, x, context):
        assert context == {}
        return super().forward(x)


@pytest.mark.parametrize("router", [mb.routers.Soft(), mb.routers.Argmax(), mb.routers.Heads(mb.routers.Soft(), 2)])
@pytest.mark.parametrize("gate", [AuxGate, ContextAuxGate])
def test_what_a_gate_gives_besides_its_scores_is_in_the_routing(router, gate):
    moe = mb.Mixture(gate(router.gate_outputs(2)), make_linears(), router).double()
    _, log = mb.call(moe, X)
    aux = log[""][0].aux
    torch.testing.assert_close(aux["sum"], X.sum(-1))
    torch.testing.assert_close(aux["twice"], 2 * moe.gate.linear(X))
    (gradient,) = torch.autograd.grad(aux["twice"].sum(), moe.gate.linear.bias)
    assert gradient.tolist() == [12.0] * router.gate_outputs(2)


def test_of_tokens_it_is_flattened_as_the_scores_are():
    moe, tokens = mb.Mixture(AuxGate(), make_linears()).double(), torch.randn(3, 5, 4).double()
    _, log = mb.call(moe, tokens)
    routing = log[""][0]
    assert routing.aux["sum"].shape == (15,)
    torch.testing.assert_close(routing.aux["twice"], 2 * routing.scores)


def test_the_routers_own_keys_win():
    class RouterKeyGate(AuxGate):
        def forward(self, x):
            scores, aux = super().forward(x)
            return scores, {**aux, "assigned": torch.zeros(len(x), 2)}

    moe = mb.Mixture(RouterKeyGate(), make_linears(), mb.routers.TopK(1)).double()
    routing = mb.call(moe, X)[1][""][0]
    assert routing.aux["assigned"].sum() == 6
    assert routing.aux.keys() >= {"sum", "twice", "assigned"}


def test_inside_a_branch_it_is_of_the_branchs_rows():
    inner = mb.Mixture(AuxGate(), make_linears())
    outer = make_argmax_mixture(mb.gates.Domain(2, 2), [nn.Linear(4, 3), inner])
    _, log = mb.call(outer, X, {"domain": DOMAIN})
    (routing,) = log["experts.1"]
    torch.testing.assert_close(routing.aux["sum"], X[routing.rows].sum(-1))
    assert "sum" not in log[""][0].aux


def test_what_is_not_of_each_row_is_refused():
    class BatchSumGate(AuxGate):
        def forward(self, x):
            return self.linear(x), {"sum": x.sum()}

    with pytest.raises(ArgumentError, match=r"^gate: must give 'sum' for each row, \(6,\), got \(\)"):
        mb.Mixture(BatchSumGate(), make_linears()).double()(X)


@pytest.mark.parametrize("router", [mb.routers.Soft(), mb.routers.TopK(2), mb.routers.Heads(mb.routers.Argmax(), 2)])
@pytest.mark.parametrize("combine", [None, mb.LogMixture()])
def test_a_stack_of_experts_is_the_list_of_them(router, combine):
    torch.manual_seed(0)
    gate, experts = mb.gates.Linear(4, router.gate_outputs(3)), [mb.experts.Linear(4, 3) for _ in range(3)]
    listed, stacked = (mb.Mixture(gate, pool, router, combine).double() for pool in (experts, mb.Stack(experts)))
    torch.testing.assert_close(stacked(X), listed(X))
    assert list(tensor_holders(stacked)) == list(listed.state_dict())


def test_stacked_experts_are_told_which_rows_they_have():
    class DomainExpert(nn.Module):
        """Returns the domain of each of its rows, as a mixture inside would read it."""

        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.scale * current_context().local_values()["domain"].to(x.dtype).unsqueeze(1)

    torch.manual_seed(0)
    for experts in (mb.Stack([DomainExpert(), DomainExpert()]), [DomainExpert(), DomainExpert()]):
        moe = mb.Mixture(nn.Linear(4, 2), experts, mb.routers.Argmax()).double()
        assert moe(X, {"domain": DOMAIN}).squeeze(1).tolist() == DOMAIN.tolist()


def test_a_notebook_shows_a_small_table():
    class Escaped(nn.Linear):
        pass

    Escaped.__name__ = "<b>"
    experts = [nn.Linear(4, 3), Escaped(4, 3), nn.Linear(4, 3)]
    listed = mb.Mixture(mb.gates.Linear(4, 3), experts, mb.routers.TopK(1))._repr_html_()
    assert "<td>2 × Linear, 1 × &lt;b&gt;</td>" in listed
    assert "<td>TopK</td>" in listed
    assert "<td>60</td>" in listed
    stack = mb.Stack.of(lambda: nn.Linear(4, 3), 64)
    assert "<td>64 × Linear</td>" in mb.Mixture(mb.gates.Linear(4, 64), stack)._repr_html_()
