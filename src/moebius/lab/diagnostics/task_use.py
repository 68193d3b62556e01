"""Which task uses which expert, in layers with a gate for each task."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from torch import nn

from moebius.core.routing import Routing
from moebius.kit.arguments import positive_number
from moebius.kit.errors import ArgumentError
from moebius.lab.diagnostics._arrays import row_shares
from moebius.layers.cgc import CGC
from moebius.layers.multi_gate_mixture import MultiGateMixture

COLUMNS = ("layer", "task", "expert", "weight", "rows", "used", "alone")


def task_use(model: nn.Module, log: Mapping[str, Sequence[Routing]], threshold: float | int = 0.5) -> pd.DataFrame:
    """How much each task uses each expert, and which experts one task has to itself.

    weight = mean_i w_ie;  rows = share of rows with w_ie ≠ 0;  used: mean_i |w_ie| / Σ_j |w_ij| ≥ threshold / E

    A task *uses* an expert that has at least `threshold` of an even share 1/E of its weight. An expert is *alone* with
    a task where no other task of the layer uses it: `frame[frame["alone"]]` names these experts. In a `PLE` the own
    experts of a task are alone by construction, unless its gate neglects them.

    Arguments:
        model: a module with `MultiGateMixture`, `CGC` or `PLE` layers inside, or one of these.
        log: of `mb.record(model)`; several calls count as one.
        threshold: in even shares, above 0. Between 1/E and E: 1 for experts that get more than an even share.

    Returns:
        A line for each layer, task (or "shared", of a shared path) and expert that its gate scores. Columns layer and
        expert (module paths), task, weight, rows, used, alone (used, and by no other).

    Raises:
        ArgumentError: the log has no routing of such a layer, or the threshold is not above 0.

    Example:
        >>> import torch, moebius as mb
        >>> gates = {"click": nn.Linear(4, 2), "price": nn.Linear(4, 2)}
        >>> for gate, bias in zip(gates.values(), ([9.0, 0.0], [0.0, 0.0])):
        ...     _ = nn.init.zeros_(gate.weight), gate.bias.data.copy_(torch.tensor(bias))
        >>> moe = MultiGateMixture(gates, [nn.Linear(4, 3), nn.Linear(4, 3)])
        >>> with mb.record(moe) as log:
        ...     y = moe(torch.ones(5, 4))
        >>> task_use(moe, log).round(2)[["task", "expert", "weight", "used", "alone"]]
            task     expert  weight   used  alone
        0  click  experts.0     1.0   True  False
        1  click  experts.1     0.0  False  False
        2  price  experts.0     0.5   True  False
        3  price  experts.1     0.5   True   True

    Reference: ours; compare Ma et al. 2018, Modeling Task Relationships in Multi-task Learning with Multi-gate
    Mixture-of-Experts, figure 6, and Tang et al. 2020, Progressive Layered Extraction, figure 8.
    """
    positive_number("threshold", threshold)
    lines = []
    for path, layer in model.named_modules():
        if not isinstance(layer, MultiGateMixture | CGC):
            continue
        for gate in layer.gates:
            routings = log.get(f"{path}.gates.{gate}".removeprefix("."), ())
            if not sum(len(routing.weights) for routing in routings):
                continue
            weights = np.concatenate([routing.weights.float().numpy(force=True) for routing in routings])
            used = row_shares(weights).mean(0) >= threshold / weights.shape[1]
            experts = [f"{path}.{expert}".removeprefix(".") for expert in layer.expert_paths(gate)]
            means, rows = weights.mean(0, dtype=np.float64), (weights != 0).mean(0)
            lines += [(path, gate, *line) for line in zip(experts, means, rows, used, strict=True)]
    if not lines:
        rule = "needs routings of a layer with a gate for each task, and has those of"
        fix = "with mb.record(model) as log: model(x), where model holds an mb.layers.MultiGateMixture or PLE"
        raise ArgumentError("log", rule, list(log), fix)
    frame = pd.DataFrame(lines, columns=pd.Index(COLUMNS[:-1]))
    users = frame.groupby(["layer", "expert"], sort=False)["used"].transform("sum")
    return frame.assign(alone=frame["used"] & (users == 1))
