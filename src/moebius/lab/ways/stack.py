"""Stack: a linear map of all networks' outputs."""

import torch
from torch import Tensor, nn

from moebius.combine.linear_stack import LinearStack
from moebius.gates.uniform import Uniform
from moebius.lab.ways._fitting import choose, columns, drawn, mean_loss, minimise
from moebius.lab.ways._pool import Pool
from moebius.lab.ways._way import Composed, Obstacle, way
from moebius.layers.mixture import Mixture
from moebius.tasks.gaussian import Gaussian

# Factors of the squared distance from the mean, divided by the number of rows.
PENALTIES = (1.0, 10.0, 100.0, 1000.0)
# Of a matrix for each network; with more numbers it is left out.
MOST_NUMBERS = 20_000
# Steps of a fit: enough for the loss to be flat, and few where the penalty is small.
STEPS = 60
# The least probability that is told apart.
FLOOR = 3e-7


@way()
def stack(pool: Pool) -> Composed | Obstacle:
    """A linear map of the networks' log-probabilities, or of their quantities, that has the least loss on the rows.

    It has a number for each network, for each network and output, or a matrix for each network, and is drawn towards
    the mean of the networks by a penalty; form and penalty are those with the least loss on rows that were not fitted.

    Reference: Wolpert 1992, Stacked Generalization; Breiman 1996, Stacked Regressions.
    """
    if pool.outputs.ndim != 3 or isinstance(pool.task, Gaussian):
        return Obstacle("it is for outputs of which a linear map is one of the task")
    outputs = pool.outputs.shape[2]
    names = ["scalar", "diagonal"]
    if outputs > 1 and pool.count * outputs**2 <= MOST_NUMBERS:
        names.append("full")
    forms = {f"{name}, penalty {penalty:g}": (name, penalty) for name in names for penalty in PENALTIES}
    few = drawn(pool)
    name = choose(few, forms, _fitted)
    model = _fitted(few, forms[name])
    model.experts = nn.ModuleList(pool.experts)
    return Composed(model.eval(), f"a linear map of all networks' outputs ({name})")


def _fitted(pool: Pool, form: tuple[str, float]) -> Mixture:
    name, penalty = form
    activation = "log_softmax" if pool.classifies else "none"
    size = {"experts": pool.count, "classes": pool.outputs.shape[2]}
    combine = LinearStack(**size, form=name, activation=activation, floor=FLOOR).to(pool.outputs.device)
    model = pool.mixture(Uniform(pool.count), combine=combine, experts=columns(pool.count))
    changes = [parameter for place, parameter in combine.named_parameters() if place != "bias"]

    def loss() -> Tensor:
        distance = torch.stack([change.square().sum() for change in changes]).sum() / pool.count**2
        return mean_loss(pool, model) + penalty / len(pool) * distance

    with torch.no_grad():
        if not bool(loss().isfinite()):
            return model
    minimise(loss, list(combine.parameters()), STEPS)
    return model
