"""Which way is recommended, and what it says of the others."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from torch import nn

import moebius as mb
from moebius.kit.errors import ArgumentError, UnknownKindError
from moebius.lab.compose.recommend import find_front, parse_cost, recommend
from moebius.lab.compose.result import Result
from moebius.lab.compose.rows import plan_rows


def test_a_gate_is_recommended_where_each_network_has_its_rows(regimes, short):
    networks, rows = regimes()
    ways = ["uniform", "soft-gate", "hard-gate", "output-gate"]
    composition = mb.compose(networks, rows, ways=ways, progress=False)
    table = composition.table
    assert composition.recommended in ("soft-gate", "hard-gate")
    assert table.loc["hard-gate", "score"] > 0.9
    assert table.loc["hard-gate", "difference_low"] > 0.05
    assert table.loc["hard-gate", "p"] < 0.001
    assert "Take" in str(composition).splitlines()[0]
    # One of two networks runs.
    x, _ = regimes(100, 5)[1]
    with mb.record(composition.models["hard-gate"]) as log:
        composition.models["hard-gate"](x)
    assert ((log[""][-1].weights != 0).sum(1) == 1).all()


def test_the_mean_is_better_where_noise_is_apart(noisy, short):
    networks, rows = noisy(1600)
    composition = mb.compose(networks, rows, ways=["uniform", "calibrated", "knora-e"], progress=False)
    assert composition.table.loc["uniform", "p"] < 0.05
    assert composition.recommended != "best-single"


def test_one_network_is_enough_where_all_say_the_same(regimes):
    network = regimes()[0]["first"]
    x, _ = regimes()[1]
    y = (x[:, 0] > 0).long()
    composition = mb.compose([network, network], (x, y), ways=["uniform", "stack"], progress=False)
    assert composition.recommended == "best-single"
    assert "No mixture is shown to be better" in str(composition)


def test_a_score_is_of_rows_that_nothing_was_fitted_to(noisy):
    networks, rows = noisy(200)
    plan = plan_rows(200, "held_out", 0)
    fitted, judged = plan.folds[0]
    assert not set(fitted.tolist()) & set(judged.tolist())
    assert sorted(fitted.tolist() + judged.tolist()) == list(range(200))
    composition = mb.compose(networks, rows, ways=["uniform"], progress=False)
    output = composition.models["uniform"](rows[0][judged])
    assert composition.table.loc["uniform", "score"] == pytest.approx(
        float((output.argmax(1) == rows[1][judged]).float().mean())
    )


def test_cross_fitting_judges_every_row_once(noisy):
    networks, rows = noisy(203)
    composition = mb.compose(networks, rows, rows={"cross_fit": 5}, ways=["weighted"], progress=False)
    assert sorted(composition.plan.judged.tolist()) == list(range(203))
    for fitted, judged in composition.plan.folds:
        assert not set(fitted.tolist()) & set(judged.tolist())
    assert len(composition.result("weighted").scores) == 203


@pytest.mark.parametrize("rows", ["cross_fit:4", "held", {"cross_fit": 2}, "cross_fit:x"])
def test_other_plans_are_refused(noisy, rows):
    networks, data = noisy(100)
    with pytest.raises(ArgumentError, match=r"^rows: "):
        mb.compose(networks, data, rows=rows, progress=False)


def result(way, score, cost, loss=1.0, count=400, control=False):
    """A way that is right on the first rows, as many as its score says."""
    scores = (np.arange(count) < round(score * count)).astype(float)
    return Result(
        way, control, "", way, nn.Identity(), scores, np.full(count, loss) + np.linspace(0, 1e-3, count), cost, cost
    )


def test_the_cheapest_that_is_not_below_the_best_is_taken():
    cheap, best = result("cheap", 0.8, 10.0), result("best", 0.9, 100.0)
    nearly, control = result("nearly", 0.9, 20.0), result("control", 0.99, 1.0, control=True)
    results = [cheap, best, nearly, control]
    assert recommend(results) == "nearly"
    assert recommend(results, 15) == "cheap"
    assert recommend(results, {"ms": 15.0}) == "cheap"
    assert find_front(results, "multiply_adds") == ["cheap", "nearly"]
    with pytest.raises(ArgumentError, match="below what the cheapest way, cheap, takes"):
        recommend(results, 5)


def test_a_way_of_a_higher_loss_is_left_out():
    results = [result("cheap", 0.9, 10.0, loss=2.0), result("best", 0.9, 100.0, loss=1.0)]
    assert recommend(results) == "best"
    assert recommend([result("cheap", 0.9, 10.0, loss=np.inf), result("best", 0.9, 100.0)]) == "best"
    assert recommend([result("cheap", 0.9, 10.0), result("best", 0.9, 100.0)]) == "cheap"


def test_of_equal_costs_the_least_loss_is_taken():
    results = [result("sure", 0.9, 10.0, loss=1.0), result("unsure", 0.8975, 10.0, loss=0.5)]
    assert recommend(results) == "unsure"


def test_the_highest_of_many_scores_by_chance_does_not_leave_out_a_way_of_less_loss():
    draw = np.random.default_rng(0)
    equal = [(draw.uniform(size=2000) < 0.65).astype(float) for _ in range(30)]
    lucky = max(equal, key=lambda scores: scores.mean())
    results = [
        Result(
            f"way-{number}", False, "", "", nn.Identity(), scores, np.full(2000, 1.0) - 0.1 * (number == 3), 10.0, 10.0
        )
        for number, scores in enumerate(equal)
    ]
    assert equal[3] is not lucky
    assert recommend(results) == "way-3"
    # One that is clearly below stays out, whatever its loss.
    below = Result(
        "below", False, "", "", nn.Identity(), equal[3] * (draw.uniform(size=2000) < 0.9), np.zeros(2000), 1.0, 1.0
    )
    assert recommend([*results, below]) == "way-3"


@pytest.mark.parametrize("cost", [0, "fast", {"seconds": 1}, {"ms": -1}, "ms=x"])
def test_costs_are_checked(cost):
    with pytest.raises(ArgumentError, match=r"^cost: "):
        parse_cost(cost)


def test_a_cost_chooses_a_cheaper_way(digits, short):
    networks, rows, _ = digits
    composition = mb.compose(networks, rows, ways=["uniform", "weighted"], progress=False)
    table = composition.table
    cheapest = table["multiply_adds"].min()
    assert composition.recommend({"multiply_adds": cheapest}) == "best-single"
    assert table.loc["best-single", "multiply_adds"] < table.loc["uniform", "multiply_adds"]


def test_specialists_are_routed_by_a_generalist(digits, short):
    networks, (x, y), _ = digits
    low, high = (
        mb.experts.Adapter(PartOf(networks["conv"], classes), classes=classes, total=10)
        for classes in (range(5), range(5, 10))
    )
    pool = {"all": networks["mlp"], "low": low, "high": high}
    composition = mb.compose(pool, (x, y), ways=["class-mass", "product", "log-pool"], progress=False)
    table, model = composition.table, composition.models["class-mass"]
    assert composition.pool.generalists == [0]
    assert table.loc["product", "loss"] < table.loc["best-single", "loss"]
    assert "would never be predicted" in table.loc["log-pool", "reason"]
    with mb.record(model) as log:
        model(x[:50])
    mass = networks["mlp"](x[:50]).softmax(-1)[:, :5].sum(1)
    torch.testing.assert_close(log[""][-1].weights[:, 0], mass)


class PartOf(nn.Module):
    """Some outputs of a network."""

    def __init__(self, network, classes):
        super().__init__()
        self.network, self.classes = network, list(classes)

    def forward(self, x):
        return self.network(x)[:, self.classes]


def test_estimators_are_composed_saved_and_supplied_again(tmp_path):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(600, 4)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] > 0).astype(int)
    models = [LogisticRegression().fit(x[:200, :], y[:200]), LogisticRegression(C=1e-4).fit(x[:200], y[:200])]
    composition = mb.compose(models, (x[200:], y[200:]), ways=["uniform", "stack"], progress=False)
    assert composition.table["multiply_adds"].isna().all()
    assert composition.pool.names == ("LogisticRegression-1", "LogisticRegression-2")
    assert composition.table.loc["best-single", "score"] > 0.9
    for way in ("uniform", "stack"):
        folder, model, rows = tmp_path / way, composition.models[way], torch.from_numpy(x[:50])
        mb.save(model, folder)
        with pytest.raises(ArgumentError, match="of no known kind have to be supplied"):
            mb.load(folder)
        supplied = {place: mb.lab.compose.as_network(each).network for place, each in enumerate(models)}
        assert torch.equal(mb.load(folder, experts=supplied)(rows), model(rows))


def test_quantities_and_labels(noisy):
    x = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    models = [Ridge().fit(x[:100, :].numpy(), x[:100, 0].numpy()), nn.Linear(3, 1)]
    composition = mb.compose(models, (x[100:], x[100:, 0] + 1.0), ways=["stack", "log-pool"], progress=False)
    assert composition.pool.task.score_name == "r2"
    assert composition.table.loc["stack", "score"] > 0.99
    assert "probabilities" in composition.table.loc["log-pool", "reason"]
    labels = torch.stack([(x[:, 0] > 0), (x[:, 1] > 0)], 1).float()
    composition = mb.compose(
        [nn.Linear(3, 2), nn.Linear(3, 2)], (x, labels), ways=["weighted", "calibrated"], progress=False
    )
    assert composition.pool.task.score_name == "label_accuracy"
    assert composition.table["score"].notna().all()


def test_what_does_not_fit_is_said(noisy):
    networks, (x, y) = noisy(100)
    with pytest.raises(ArgumentError, match=r"^models: needs at least one"):
        mb.compose([], (x, y))
    with pytest.raises(ArgumentError, match=r"^m: .*shape \(2,\)"):
        mb.compose({**networks, "m": nn.Linear(3, 4)}, (x, y), progress=False)
    with pytest.raises(ArgumentError, match=r"^m: does not take these rows"):
        mb.compose({"m": nn.Linear(5, 2)}, (x, y), progress=False)
    with pytest.raises(UnknownKindError, match="no way is called 'unifrom'"):
        mb.compose(networks, (x, y), ways=["unifrom"])
    with pytest.raises(ArgumentError, match="needs 60 rows at least"):
        mb.compose(networks, (x[:50], y[:50]))
    with pytest.raises(ArgumentError, match="needs to be fitted"):
        mb.compose([LogisticRegression()], (x, y))
    with pytest.raises(ArgumentError, match="row 3 has one that is none"):
        mb.compose([Broken()], (x, y), progress=False)


class Broken(nn.Module):
    """Gives NaN for one row."""

    def forward(self, x):
        y = torch.zeros(len(x), 2)
        y[3:4] = torch.nan
        return y


def test_controls_are_trained_and_never_recommended(noisy, short):
    networks, rows = noisy(300)
    more = noisy(300, 1)[1]
    composition = mb.compose(
        networks, rows, controls=more, ways=["uniform", "gate-network", "distilled"], progress=False
    )
    assert composition.table.loc["gate-network", "control"]
    assert composition.recommended in ("uniform", "best-single")
    assert composition.table.loc[["gate-network", "distilled"], "score"].notna().all()
