"""Trained networks to a mixture: every way is tried, and the one that is worth it is recommended."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from moebius.kit.errors import ArgumentError
from moebius.lab.compose.composition import Composition
from moebius.lab.compose.judge import judge_ways, way_names
from moebius.lab.compose.networks import as_networks
from moebius.lab.compose.outputs import Listener, compute_outputs
from moebius.lab.compose.recommend import Cost, parse_cost, recommend
from moebius.lab.compose.rows import infer_task, plan_rows, read_split
from moebius.lab.data.split import Dataset
from moebius.lab.training.fit_rows import Names
from moebius.lab.ways._pool import Pool
from moebius.tasks._choice import TaskLike

log = logging.getLogger("moebius")


def compose(
    models: Mapping[str, Any] | Sequence[Any],
    data: Any,
    *,
    cost: Cost = None,
    rows: str | Mapping[str, int] = "held_out",
    task: TaskLike | None = None,
    ways: Iterable[str] | None = None,
    controls: Any = False,
    gate: Callable[[int], nn.Module] | None = None,
    names: Sequence[str] | None = None,
    inputs: Names | None = None,
    target: Names | None = None,
    scale: str = "unit",
    seed: int = 0,
    device: str = "auto",
    progress: bool | Listener = True,
) -> Composition:
    """Find out which mixture of trained networks is worth it, and get it.

    The outputs of all networks are computed once. Then every way of room `ways` is fitted to some rows and judged on
    others: the best single network, equal weights, temperatures, constants, gates, a linear stack and more. Every
    difference to the best single network is one of the same rows, and its p value is corrected for all ways (Holm).

    Arguments:
        models: at least one trained model: modules of any classes, `mb.experts.Adapter`s (for a network that knows some
            classes, or wants other images), results of `mb.fit`, folders of saved models or of studies' runs, fitted
            estimators of scikit-learn; or a mapping of names to them. Outputs are logits, or quantities; networks are
            shared, and frozen.
        data: inputs and targets that the models have not been trained on, in any form that `mb.fit` takes. Of a
            `moebius.lab.data` set, the held-out rows, or else the test rows.
        cost: the most that a row may cost: {"multiply_adds": 1e6}, or {"ms": 0.5}; None for no limit.
        rows: "held_out" (ways are fitted to a half of the rows and judged on the other), "cross_fit:5" (each fifth is
            judged by ways that were fitted to the others, and the model is fitted to all), or "in_sample" (fitted and
            judged on all, which is too favourable).
        task: what the models have learned, as for `mb.fit`; unless given, the targets tell: whole numbers are classes,
            columns of 0 and 1 labels, others quantities.
        ways: names of ways, such as ["uniform", "stack"]; None for all.
        controls: True for models that are trained from the start, which a mixture has to beat: the gate's own network,
            an ensemble, one network of as many parameters, one that is distilled. They are trained on the fitted rows,
            or on these rows, such as those that the models were trained on.
        gate: makes a gate for a number of experts, E → module; None for one that fits the rows.
        names: of the models.
        inputs, target: names of columns, as for `mb.fit`.
        scale: of uint8 pixels, as for `mb.fit`.
        seed: of everything random.
        device: "cpu", "cuda", or "auto" for a GPU where there is one.
        progress: whether the logger "moebius" hears what is done; or a function that receives a line.

    Returns:
        The composition: its `table` of ways, the `recommended` one, and `model`, which is saved, exported and explained
        like any mixture.

    Raises:
        ArgumentError: models, rows and task do not fit, rows are too few, or no way costs so little.
        UnknownKindError: no way is called so.

    Example:
        >>> import moebius as mb
        >>> x = torch.randn(400, 4)
        >>> y = (x[:, 0] * x[:, 1] > 0).long()
        >>> networks = [nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2)) for _ in range(2)]
        >>> for network in networks:
        ...     _ = mb.fit(mb.Mixture(mb.gates.Uniform(1), [network]), (x, y), epochs=2, progress=False)
        >>> more = torch.randn(200, 4)
        >>> composition = compose(networks, (more, (more[:, 0] * more[:, 1] > 0).long()), ways=["uniform", "stack"])
        >>> sorted(composition.table.index)
        ['best-single', 'stack', 'uniform']

    Reference: ours; Yadav et al. 2024, A Survey on Model MoErging, arXiv:2408.07057, on how seldom ways are compared.
    """
    parse_cost(cost)
    kinds = way_names(ways, controls is not False)
    tell = progress if callable(progress) else (log.info if progress else None)
    split = read_split(data, inputs, target, scale)
    learned = infer_task(task, split.labels)
    classes = _class_count(data, split.labels)
    networks = as_networks(models, names, classes)
    device = _device(device)
    split = split.to(device)
    for network in networks.values():
        network.to(device)
    plan_rows(len(split), rows, seed)
    outputs = compute_outputs(networks, learned, split, seed, tell)
    plan = plan_rows(len(outputs.rows), rows, seed)
    training = None
    if controls is not False and controls is not True:
        training = read_split(controls, inputs, target, scale, "controls").to(device)
    columns = data.columns if isinstance(data, Dataset) else None
    pool = Pool(
        tuple(networks),
        tuple(networks.values()),
        learned,
        outputs.rows,
        outputs.values,
        outputs.knows,
        seed,
        gate,
        () if columns is None else tuple(columns.cardinalities),
        training,
    )
    results = judge_ways(pool, plan, kinds, tell)
    return Composition(tuple(results), recommend(results, cost), pool, plan)


def _class_count(data: Any, labels: Any) -> int | None:
    if isinstance(data, Dataset):
        return len(data.classes) or None
    whole = isinstance(labels, torch.Tensor) and not labels.is_floating_point() and labels.ndim == 1 and len(labels)
    return int(labels.max()) + 1 if whole else None


def _device(name: str) -> str:
    if name not in ("auto", "cpu", "cuda"):
        raise ArgumentError("device", "needs auto, cpu or cuda", name, 'device="auto"')
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
