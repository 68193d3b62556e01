import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import moebius as mb
from moebius.kit.errors import ArgumentError
from moebius.layers import PositionMixture

ROUTERS = {
    "soft": mb.routers.Soft,
    "top_1": lambda: mb.routers.TopK(1),
    "top_2": lambda: mb.routers.TopK(2),
    "threshold": lambda: mb.routers.Threshold(0.3),
    "choice": lambda: mb.routers.ExpertChoice(0.5),
    "heads": lambda: mb.routers.Heads(mb.routers.TopK(1), 2),
}
EXPERTS, B, S, C = 4, 6, 5, 3
MASK = torch.arange(S) < torch.tensor([[5], [3], [0], [1], [5], [2]])
COMBINES = {"sum": mb.WeightedSum, "log": mb.LogMixture, "maximum": mb.HeadMaximum}


def random_rows(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Reader(nn.Module):
    """Reads a whole sequence: each position's output depends on all others."""

    def __init__(self, width=4, outputs=C):
        super().__init__()
        self.linear = nn.Linear(width, outputs)

    def forward(self, x):
        return self.linear(x + x.flip(1).cumsum(1))


class MaskedReader(Reader):
    """A reader that leaves out the padding which its attention mask names."""

    def forward(self, x, context):
        return super().forward(x * context["real"].unsqueeze(-1))


def make_mixture(router="soft", kind="reader", stack=False, combine=None, image=False):
    torch.manual_seed(0)
    gate_router = ROUTERS[router]()
    width = gate_router.gate_outputs(EXPERTS)
    if image:
        experts = [nn.Sequential(nn.Conv2d(2, C, 3, padding=1), nn.Tanh()) for _ in range(EXPERTS)]
        return PositionMixture(
            nn.Conv2d(2, width, 3, padding=1), experts, gate_router, combine, channel_axis=1
        ).double()
    kinds = {"reader": Reader, "masked": MaskedReader, "dense": lambda: nn.Linear(4, C)}
    experts = [kinds[kind]() for _ in range(EXPERTS)]
    return PositionMixture(
        Reader(outputs=width), mb.Stack(experts) if stack else experts, gate_router, combine
    ).double()


def run_by_hand(moe, x):
    """All experts on all inputs, and a mixture of their outputs one position after another."""
    last = (lambda y: y.movedim(1, -1)) if moe.channel_axis == 1 else (lambda y: y)
    scores = last(moe.gate(x))
    outputs = torch.stack([last(expert(x)) for expert in moe.experts], -2)
    routing = moe.router(scores.flatten(0, -2))
    values = outputs.flatten(0, -3)
    if routing.selection is not None:
        values = routing.selection.select_outputs(values)
    y = moe.combine(values, routing).unflatten(0, scores.shape[:-1])
    return y.movedim(-1, 1) if moe.channel_axis == 1 else y


def gradients(moe, y, x=()):
    weights = torch.linspace(0.5, 1.5, y.numel(), dtype=y.dtype).view_as(y)
    return torch.autograd.grad((y * weights).square().sum(), [*moe.parameters(), *x], allow_unused=True)


@pytest.mark.parametrize("image", [False, True])
@pytest.mark.parametrize("combine", COMBINES)
@pytest.mark.parametrize("router", ROUTERS)
def test_it_is_a_mixture_at_each_position_of_experts_that_see_everything(router, combine, image):
    moe = make_mixture(router, combine=COMBINES[combine](), image=image)
    x = random_rows(B, 2, 3, 4) if image else random_rows(B, S, 4)
    x.requires_grad_()
    y, expected = moe(x), run_by_hand(moe, x)
    assert y.shape == ((B, C, 3, 4) if image else (B, S, C))
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(gradients(moe, y, [x]), gradients(moe, expected, [x]))


def test_worked():
    # Scores ln 1 and ln 3 at both positions: weights ¼ and ¾ of 4·sum and 8·sum, with a sum of 3.
    class Sums(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def forward(self, x):
            return self.factor * x.sum(1, keepdim=True).expand_as(x)

    class Constant(nn.Module):
        def forward(self, x):
            return torch.tensor([1.0, 3.0]).log().expand(*x.shape[:2], 2)

    y = PositionMixture(Constant(), [Sums(4.0), Sums(8.0)])(torch.tensor([[[1.0], [2.0]]]))
    torch.testing.assert_close(y, torch.full((1, 2, 1), 21.0))


@pytest.mark.parametrize("stack", [False, True])
@pytest.mark.parametrize("execution", ["auto", "loop", "sorted", "dense"])
@pytest.mark.parametrize("router", ["top_1", "top_2", "threshold"])
@pytest.mark.parametrize("kind", ["reader", "dense"])
def test_every_execution_gives_the_same(kind, router, execution, stack):
    first, x = make_mixture(router, kind, stack), random_rows(B, S, 4)
    moe = PositionMixture(first.gate, first.experts, first.router, execution=execution)
    y, expected = moe(x), run_by_hand(moe, x)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(gradients(moe, y), gradients(moe, expected))


@pytest.mark.parametrize("with_mask", [False, True])
@pytest.mark.parametrize("router", ROUTERS)
def test_an_expert_runs_once_on_the_inputs_in_which_some_position_selected_it(router, with_mask):
    moe, x, calls = make_mixture(router), random_rows(B, S, 4), {}
    with torch.no_grad():
        moe.gate.linear.weight.mul_(3)
    for number, expert in enumerate(moe.experts):
        expert.register_forward_hook(
            lambda expert, args, y, number=number: calls.setdefault(number, []).append(args[0])
        )
    mask = MASK if with_mask else torch.ones_like(MASK)
    with mb.record(moe) as log:
        moe(x, mask=mask)
    (routing,) = log[""]
    chosen = torch.zeros(B * S, EXPERTS, dtype=torch.bool)
    chosen[mask.flatten()] = (routing.weights != 0) | torch.tensor(router == "soft")
    of_input = chosen.view(B, S, EXPERTS).any(1)
    assert set(calls) == set(of_input.any(0).nonzero().squeeze(1).tolist())
    for number, inputs in calls.items():
        assert len(inputs) == 1
        assert torch.equal(inputs[0], x[of_input[:, number]])
    if router == "top_1":
        assert 0 < of_input.sum() < mask.any(1).sum() * EXPERTS


@pytest.mark.parametrize("way", ["argument", "block"])
@pytest.mark.parametrize("outputs", [False, True])
@pytest.mark.parametrize("router", ROUTERS)
def test_padding_is_in_no_routing_and_has_output_0(router, outputs, way):
    """Positions of padding have no effect, where gate and experts leave them out."""
    moe, x = make_mixture(router, "masked"), random_rows(B, S, 4)
    moe.gate = MaskedReader(outputs=moe.router.gate_outputs(EXPERTS)).double()
    runs = []
    for values in (0.0, 9.0):
        filled = torch.where(MASK.unsqueeze(-1), x, values)
        with mb.record(moe, outputs=outputs) as log:
            if way == "argument":
                y = moe(filled, {"real": MASK.double()}, MASK)
            else:
                with mb.context(mask=MASK, real=MASK.double()):
                    y = moe(filled)
        assert not y[~MASK].any()
        (routing,) = log[""]
        assert routing.rows.tolist() == MASK.flatten().nonzero().squeeze(1).tolist()
        assert len(routing.weights) == MASK.sum()
        runs.append([y, routing, gradients(moe, y)])
    torch.testing.assert_close(runs[0][0], runs[1][0])
    torch.testing.assert_close(runs[0][2], runs[1][2])
    # The router sees the real positions and nothing else.
    masked = x * MASK.unsqueeze(-1)
    with mb.context(real=MASK.double()):
        scores = moe.gate(masked, {"real": MASK.double()})[MASK]
        expected = moe.router(scores)
        values = torch.stack([expert(masked, {"real": MASK.double()})[MASK] for expert in moe.experts], 1)
    torch.testing.assert_close(runs[0][1].weights, expected.weights)
    if outputs:
        torch.testing.assert_close(runs[0][1].outputs, values)
    values = values if expected.selection is None else expected.selection.select_outputs(values)
    torch.testing.assert_close(runs[0][0][MASK], moe.combine(values, expected))


@pytest.mark.parametrize("router", ["soft", "top_1"])
def test_whole_inputs_of_padding_reach_neither_gate_nor_experts(router):
    for image in (False, True):
        moe = make_mixture(router, image=image)
        x = random_rows(B, 2, 3, 4) if image else random_rows(B, S, 4)
        mask = torch.tensor([True, False, True, True, False, True])
        spoilt = torch.where(mask.view(B, *[1] * (x.ndim - 1)), x, torch.nan)
        with mb.record(moe) as log:
            y = moe(spoilt, mask=mask)
        with mb.record(moe) as log_alone:
            alone = moe(x[mask])
        torch.testing.assert_close(y[mask], alone)
        assert not y[~mask].any()
        positions = 12 if image else S
        assert log_alone[""][0].rows is None
        kept = mask.nonzero().squeeze(1).unsqueeze(1) * positions + torch.arange(positions)
        assert log[""][0].rows.tolist() == kept.flatten().tolist()
        assert all(gradient.isfinite().all() for gradient in gradients(moe, y))


def test_pixels_of_padding():
    moe, x = make_mixture("top_2", image=True), random_rows(B, 2, 3, 4)
    mask = torch.rand(B, 3, 4, generator=torch.Generator().manual_seed(1)) > 0.4
    y, expected = moe(x, mask=mask), run_by_hand(moe, x)
    torch.testing.assert_close(y, expected * mask.unsqueeze(1))
    with pytest.raises(
        ArgumentError, match=r"^mask: needs the positions of the gate's scores, \(B, 3, 4\), got \(6, 4, 3\)"
    ):
        moe(x, mask=mask.transpose(1, 2))
    with pytest.raises(ArgumentError, match=r"^mask: needs the first axis of the input"):
        moe(x, mask=mask[1:])


@pytest.mark.parametrize("router", ["soft", "top_1"])
def test_mixtures_of_tokens_inside_the_experts_leave_out_the_same_padding(router):
    inner = [mb.Mixture(mb.gates.Linear(4, 2), [nn.Linear(4, C), nn.Linear(4, C)]) for _ in range(EXPERTS)]
    first, x = make_mixture(router), random_rows(B, S, 4)
    moe = PositionMixture(first.gate, inner, first.router).double()
    with mb.record(moe) as log:
        moe(x, mask=MASK)
    weights = torch.zeros(B * S, EXPERTS).double().index_copy(0, log[""][0].rows, log[""][0].weights)
    for number in range(EXPERTS):
        inputs = weights.view(B, S, EXPERTS)[..., number].any(1)
        routings = log.get(f"experts.{number}", [])
        assert sum(len(routing.weights) for routing in routings) == MASK[inputs].sum()


def test_inside_a_mixture_positions_have_the_number_of_their_row():
    class MeanGate(nn.Module):
        def forward(self, x):
            return torch.stack([x.mean((1, 2)), -x.mean((1, 2))], -1)

    x, inner = random_rows(B, S, 4), make_mixture("top_1")
    moe = mb.Mixture(MeanGate(), [inner, Reader().double()], mb.routers.Argmax())
    y, log = mb.call(moe, x)
    rows = (x.mean((1, 2)) > 0).nonzero().squeeze(1)
    assert 0 < len(rows) < B
    assert log["experts.0"][0].rows.tolist() == rows.repeat_interleave(S).tolist()
    torch.testing.assert_close(y[rows], inner(x[rows]))


def test_a_gates_further_values_are_those_of_the_real_positions():
    class TellingGate(nn.Linear):
        gives_aux = True

        def forward(self, x):
            return super().forward(x), {"sum": x.sum(-1)}

    first, x = make_mixture("top_1"), random_rows(B, S, 4)
    moe = PositionMixture(TellingGate(4, EXPERTS).double(), first.experts, first.router)
    with mb.record(moe) as log:
        moe(x, mask=MASK)
    torch.testing.assert_close(log[""][0].aux["sum"], x.sum(-1)[MASK])


def test_no_inputs_and_only_padding():
    for router in ROUTERS:
        moe = make_mixture(router)
        assert moe(random_rows(0, S, 4)).shape == (0, S, C)
        assert moe(random_rows(B, S, 4), mask=torch.zeros(B, S, dtype=torch.bool)).eq(0).all()


def test_copies_states_and_folders(tmp_path):
    experts = mb.Stack([mb.experts.MLP(4, C) for _ in range(EXPERTS)])
    moe = PositionMixture(mb.gates.Linear(4, EXPERTS), experts, mb.routers.TopK(2), mb.LogMixture())
    x = random_rows(B, S, 4).float()
    mb.save(moe, tmp_path)
    loaded = mb.load(tmp_path)
    assert repr(loaded) == repr(moe)
    for twin in (loaded, copy.deepcopy(moe)):
        torch.testing.assert_close(twin(x), moe(x), rtol=0, atol=0)


def test_segmentation_with_frozen_networks_trains_its_gate():
    """Two nets are right on the left and on the right half of an image: a gate for each pixel learns which is where."""
    torch.manual_seed(0)

    class Half(nn.Module):
        """Right where it sees its half; the opposite elsewhere."""

        def __init__(self, is_left):
            super().__init__()
            self.is_left = is_left
            self.conv = nn.Conv2d(2, 2, 3, padding=1)

        def forward(self, x):
            sign = torch.where((torch.arange(x.shape[-1]) < x.shape[-1] // 2) == self.is_left, 1.0, -1.0)
            return torch.stack([x[:, 0], -x[:, 0]], 1) * 4 * sign + 0 * self.conv(x)

    place = torch.linspace(-1, 1, 8).expand(32, 1, 8, 8)
    x = torch.cat([torch.randn(32, 1, 8, 8), place], 1)
    target = (x[:, 0] < 0).long()
    experts = [mb.experts.Adapter(Half(is_left), frozen=True) for is_left in (True, False)]
    gate = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1))
    moe = PositionMixture(gate, experts, combine=mb.LogMixture(), channel_axis=1)
    optimizer = torch.optim.Adam([p for p in moe.parameters() if p.requires_grad], lr=0.03)
    losses = []
    for _ in range(60):
        loss = F.nll_loss(moe(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0], (losses[0], losses[-1])
    weights = mb.call(moe, x)[1][""][0].weights.view(32, 8, 8, 2)[..., 0].mean((0, 1))
    assert weights[:3].min() > 0.8 > 0.2 > weights[5:].max()
    assert all(parameter.grad is None for parameter in moe.experts.parameters())


@pytest.mark.parametrize("change", [{"channel_axis": 2}, {"channel_axis": 0}, {"channel_axis": True}])
def test_channels_are_first_or_last(change):
    with pytest.raises(ArgumentError, match="channel_axis: needs 1 for channels before the positions, or -1"):
        PositionMixture(nn.Linear(4, 2), [nn.Linear(4, 3)] * 2, **change)


def test_what_it_cannot_be_made_of():
    with pytest.raises(ArgumentError, match="experts: needs at least one expert"):
        PositionMixture(nn.Linear(4, 2), [])
    with pytest.raises(ArgumentError, match="router: needs a router that goes by scores"):
        PositionMixture(nn.Linear(4, 2), [nn.Linear(4, 3)] * 2, mb.routers.Hash())


class Pooled(nn.Linear):
    def forward(self, x):
        return super().forward(x.mean(1))


@pytest.mark.parametrize(
    ("gate", "experts", "message"),
    [
        (nn.Linear(4, 3), None, r"^gate: must give 2 scores for each position of 2 experts, \(B, positions…, 2\), got"),
        (
            Pooled(4, 2),
            None,
            r"^gate: must give scores for each position of 6 inputs, \(B, positions…, 2\), got \(6, 2\)",
        ),
        (nn.Flatten(0, 1), None, r"^gate: must give scores for each position of 6 inputs"),
        (None, [Pooled(4, 3), Pooled(4, 3)], r"^experts: must give an output for each position .*\(B, 5, C\), got"),
        (
            None,
            [nn.Sequential(nn.Linear(4, 3), nn.Unflatten(1, (1, 5)))] * 2,
            r"^experts: must give an output for each position",
        ),
        (None, [nn.Linear(4, 3), Pooled(4, 3)], r"^experts\.1: gives rows of shape \(3,\) where experts\.0 gives"),
    ],
)
@pytest.mark.parametrize("router", [mb.routers.Soft(), mb.routers.TopK(2)])
def test_what_a_call_refuses(gate, experts, message, router):
    moe = PositionMixture(gate or nn.Linear(4, 2), experts or [nn.Linear(4, 3), nn.Linear(4, 3)], router)
    with pytest.raises(ArgumentError, match=message) as caught:
        moe(torch.zeros(B, S, 4))
    assert caught.value.fix
