"""The settings of a call of `fit`: its keywords, their short forms, and what `trains` says of gate and experts."""

import re
from collections.abc import Mapping
from typing import Any

from moebius.kit.errors import ArgumentError
from moebius.kit.registry import did_you_mean
from moebius.lab.checks.problems import Path, Problem, path_text
from moebius.lab.checks.strict import Strict
from moebius.lab.checks.wording import validate
from moebius.lab.training.settings import Settings, TrainingKeywords

TRAINS = ("gate", "experts", "both", "alternate", "gate_first")
# Short form → the place in `Settings` that it stands for, and an example.
SHORT: Mapping[str, tuple[Path, str]] = {
    "lr": (("optimizer", "lr"), "lr=1e-3"),
    "patience": (("watch", "patience"), "patience=5"),
    "plateau": (("watch", "plateau", "patience"), "plateau=5"),
}
LOSSES = 'losses=[{"kind": "switch_balance", "weight": 0.01}, my_loss, (my_other_loss, 0.1)]'


def fit_settings(settings: Settings | Mapping[str, Any] | None, keywords: Mapping[str, Any], trains: str) -> Settings:
    """The settings of a call of `fit`.

    Arguments:
        settings: what the keywords are laid over; None for the defaults.
        keywords: fields of `Settings`, and short forms.
        trains: one of `TRAINS`; it decides which part is frozen and when a part trains.

    Raises:
        ArgumentError: `trains` or a keyword is unknown, or a value breaks a rule.

    Example:
        >>> fit_settings(None, {"lr": 0.1, "plateau": 3}, "gate")
        Settings(optimizer=OptimizerChoice(lr=0.1), experts=Part(freeze=True), \
watch=Watch(plateau=Plateau(patience=3)), precision='fp32')
    """
    if trains not in TRAINS:
        fix = f'trains="gate"    # {did_you_mean(trains, TRAINS)}'
        raise ArgumentError("trains", f"needs one of {', '.join(TRAINS)}", trains, fix)
    if not isinstance(settings, Settings | Mapping | None):
        raise ArgumentError("settings", "needs a mapping or Settings", settings, 'settings={"epochs": 20}')
    names = list(TrainingKeywords.__annotations__)
    for name, value in keywords.items():
        if name not in names:
            raise ArgumentError(name, "fit has no such keyword", value, did_you_mean(name, names))
    values = {**_set_values(settings), **{name: item for name, item in keywords.items() if name not in SHORT}}
    short = {name: keywords[name] for name in SHORT if keywords.get(name) is not None}
    for name, item in short.items():
        values = _lay(values, SHORT[name][0], item)
    checked, problems = validate(Settings, values)
    if checked is None:
        raise _argument_error(problems[0], short)
    parts = {
        name: getattr(checked, name).model_copy(update=part) for name, part in _parts(trains, checked.epochs).items()
    }
    precision = {"precision": "fp32"} if checked.precision == "auto" else {}
    return checked.model_copy(update={**parts, **precision})


def _parts(trains: str, epochs: int) -> dict[str, dict[str, Any]]:
    """What `trains` sets of `Settings.gate` and `Settings.experts`."""
    if trains == "gate":
        return {"experts": {"freeze": True}}
    if trains == "experts":
        return {"gate": {"freeze": True}}
    if trains == "alternate":
        return {"gate": {"period": 2, "phase": 0}, "experts": {"period": 2, "phase": 1}}
    return {"experts": {"start_epoch": epochs / 2}} if trains == "gate_first" else {}


def _lay(value: Any, path: Path, item: Any) -> Any:
    """A copy of a value with `item` at `path`."""
    if not path:
        return item
    inner = _set_values(value)
    return {**inner, path[0]: _lay(inner.get(str(path[0])), path[1:], item)}


def _set_values(value: Any) -> dict[Any, Any]:
    """The keys of a mapping, or the fields of a model that were set; another value is the kind of an optimizer."""
    if isinstance(value, Strict):
        return {name: getattr(value, name) for name in value.model_fields_set}
    return {} if value is None else dict(value) if isinstance(value, Mapping) else {"kind": value}


def _argument_error(problem: Problem, short: Mapping[str, Any]) -> ArgumentError:
    """The problem as an error of a call: with the name that was typed, and a fix in Python."""
    path, fix = problem.path, _python_fix(problem)
    for name in short:
        place, example = SHORT[name]
        if path[: len(place)] == place:
            path, fix = (name, *path[len(place) :]), fix if problem.fix else example
    return ArgumentError(path_text(path), problem.rule, problem.value, fix)


def _python_fix(problem: Problem) -> str:
    """The fix of a problem with names in quotes; where it has none, the default of the field."""
    fix = problem.fix
    if problem.path[0] == "losses" and (fix is None or (len(problem.path) == 2 and fix.startswith("such as"))):
        return LOSSES
    if fix is not None:
        # Names inside of braces get quotes; those inside of numbers, as in 1e-3, are none.
        quoted = re.sub(r"\{.*?\}", lambda braces: re.sub(r"(?<!\w)([A-Za-z_]\w*)(?=[:,}])", r'"\1"', braces[0]), fix)
        return re.sub(r"^(\w+): ", r"\1=", quoted)
    name = str(problem.path[0])
    return f"{name}={Settings().model_dump()[name]!r}"
