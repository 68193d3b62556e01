"""Trying ways: each is fitted to some rows, and judged on others."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from moebius.core.output_cache import OutputCache
from moebius.kit.errors import MoebiusError, UnknownKindError
from moebius.kit.registry import did_you_mean, find, kinds
from moebius.lab.compose.outputs import Listener
from moebius.lab.compose.result import Result, measure_costs
from moebius.lab.compose.rows import Plan
from moebius.lab.training.call_model import ModelCall
from moebius.lab.training.evaluation import Evaluation, evaluate
from moebius.lab.ways._pool import Pool
from moebius.lab.ways._way import Composed, Obstacle

ROOM = "ways"
# What every other way is compared with.
BASELINE = "best-single"


def way_names(ways: Iterable[str] | None, controls: bool) -> list[str]:
    """The kinds of the ways that are tried, the baseline always among them.

    Arguments:
        ways: their names, with hyphens or underscores; None for all.
        controls: whether those that are trained from the start are tried, too.

    Raises:
        UnknownKindError: no way is called so.
    """
    every = kinds(ROOM)
    if ways is None:
        return [kind for kind in every if controls or not _is_control(kind)]
    chosen = [kind_of_way(name) for name in ways]
    return list(dict.fromkeys([kind_of_way(BASELINE), *chosen]))


def kind_of_way(name: str) -> str:
    """The kind of a way's name, "best_single" of "best-single".

    Raises:
        UnknownKindError: no way is called so.
    """
    kind = str(name).replace("-", "_")
    if kind not in kinds(ROOM):
        names = [each.replace("_", "-") for each in kinds(ROOM)]
        raise UnknownKindError(f"no way is called {name!r}", did_you_mean(str(name), names))
    return kind


def judge_ways(pool: Pool, plan: Plan, names: Iterable[str], tell: Listener | None = None) -> list[Result]:
    """Try ways.

    Arguments:
        pool: of all rows.
        plan: the rows to fit and those to judge.
        names: kinds of the ways.
        tell: receives a line before each.
    """
    names, folds = list(names), [pool.take(fitted) for fitted, _ in plan.folds]
    # The rows of the model that is handed out.
    whole = folds[0] if len(folds) == 1 else pool.take(torch.arange(len(pool)))
    results = []
    for number, name in enumerate(names, 1):
        if tell is not None:
            tell(f"{name.replace('_', '-')} ({number} of {len(names)})")
        results.append(_judge(name, pool, plan, folds, whole))
    return results


def _judge(name: str, pool: Pool, plan: Plan, folds: list[Pool], whole: Pool) -> Result:
    function: Any = find(ROOM, name)
    title, control = name.replace("_", "-"), _is_control(name)
    evaluations: list[Evaluation] = []
    last: Composed | Obstacle = Obstacle("there are no rows")
    for fold, (_, judged) in zip(folds, plan.folds, strict=True):
        last = _compose(function, fold)
        if isinstance(last, Obstacle):
            return Result(title, control, last.reason)
        evaluations.append(evaluate_model(last.model, pool, judged))
    composed = last if len(folds) == 1 else _compose(function, whole)
    if isinstance(composed, Obstacle):
        return Result(title, control, composed.reason)
    scores, losses = (
        torch.cat([getattr(each, name) for each in evaluations]).double().numpy() for name in ("scores", "losses")
    )
    costs = measure_costs(composed.model, pool.rows)
    return Result(title, control, "", composed.text, composed.model, scores, losses, *costs)


def _compose(function: Callable[[Pool], Composed | Obstacle], pool: Pool) -> Composed | Obstacle:
    with torch.random.fork_rng():
        torch.manual_seed(pool.seed)
        try:
            return function(pool)
        except MoebiusError as error:
            return Obstacle(error.message)


def evaluate_model(model: nn.Module, pool: Pool, rows: Tensor) -> Evaluation:
    """What a model makes of some rows of a pool, whose networks' outputs are looked up.

    Arguments:
        model: made of the pool's networks.
        pool: of all rows.
        rows: their positions.
    """
    tables: dict[nn.Module, Tensor] = {
        expert: pool.outputs[rows.to(pool.outputs.device), number] for number, expert in enumerate(pool.experts)
    }
    split = pool.rows.take(rows.to(pool.rows.device))
    (evaluation,) = evaluate(ModelCall(model), pool.task.for_model(model), split, OutputCache(tables))
    return evaluation


def _is_control(kind: str) -> bool:
    return bool(find(ROOM, kind).way.control)  # type: ignore[attr-defined]
