"""Points that Optuna proposes: a function of the recipe's sweep and the results so far, so that nothing is stored."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from moebius.kit.errors import MissingExtraError
from moebius.lab.recipe.schema import RangeSpec, SweepSpec
from moebius.lab.recipe.sweep.values import round_value

# Points that are proposed at a time for a variant, whatever the machine: results then depend on the recipe alone.
BATCH = 4
# How often a point that has been tried before is proposed again until the values count as used up.
MOST_REPEATS = 50


def propose_points(
    sweep: SweepSpec, keys: Sequence[str], trials: Sequence[tuple[Mapping[str, Any], float | None]]
) -> list[dict[str, Any]]:
    """The next points of a variant: at most `BATCH`, none when all trials are made or all values used up.

    The tree-structured Parzen estimator is seeded by the sweep's seed and the number of trials so far.

    Arguments:
        sweep: of the recipe.
        keys: the swept keys that apply to the variant.
        trials: the points so far with their mean scores on held-out rows; None for a point that diverged.

    Raises:
        MissingExtraError: Optuna is not installed.

    Reference: Bergstra, Bardenet, Bengio, Kégl 2011, Algorithms for Hyper-Parameter Optimization; Akiba et al. 2019,
    Optuna, arXiv:1907.10902.
    """
    optuna = _import_optuna()
    count = min(BATCH, sweep.trials - len(trials))
    distributions = {key: _distribution(sweep.keys[key]) for key in keys}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=sweep.seed + len(trials), constant_liar=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for values, score in trials:
        # A pruned trial counts as worse than all others.
        state = optuna.trial.TrialState.PRUNED if score is None else optuna.trial.TrialState.COMPLETE
        params = {key: _encode(sweep.keys[key], values[key]) for key in keys}
        study.add_trial(optuna.create_trial(params=params, distributions=distributions, value=score, state=state))
    tried = [dict(values) for values, _ in trials]
    points: list[dict[str, Any]] = []
    for _ in range(MOST_REPEATS):
        if len(points) >= count:
            break
        params = study.ask(distributions).params
        point = {key: _decode(sweep.keys[key], params[key]) for key in keys}
        if point not in tried:
            tried.append(point)
            points.append(point)
    return points


def _import_optuna() -> Any:
    try:
        import optuna
    except ImportError:
        rule = "sweep.method optuna needs the package of this name"
        raise MissingExtraError(rule, "pip install 'moebius[sweep]', or sweep.method=random") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _distribution(tried: Any) -> Any:
    optuna = _import_optuna()
    if not isinstance(tried, Mapping):
        # By place: values may be lists and mappings.
        return optuna.distributions.CategoricalDistribution(range(len(tried)))
    spec = RangeSpec.model_validate(tried)
    kind = optuna.distributions.IntDistribution if spec.is_whole else optuna.distributions.FloatDistribution
    return kind(spec.low, spec.high, log=spec.scale == "log")


def _encode(tried: Any, value: Any) -> Any:
    return value if isinstance(tried, Mapping) else tried.index(value)


def _decode(tried: Any, value: Any) -> Any:
    return round_value(RangeSpec.model_validate(tried), value) if isinstance(tried, Mapping) else tried[value]
