"""The settings of a call of `fit`: its keywords, their short forms, and what `trains` says of gate and experts."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from moebius.kit.errors import ArgumentError
from moebius.kit.registry import did_you_mean
from moebius.lab.checks.problems import Path, Problem, path_text
from moebius.lab.checks.strict import Strict
from moebius.lab.checks.wording import problems_of
from moebius.lab.training.optimizer_choice import OptimizerChoice
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
    if "lr" in short:
        optimizer = values.get("optimizer", {})
        is_kind = not isinstance(optimizer, Mapping | OptimizerChoice)
        values["optimizer"] = {**({"kind": optimizer} if is_kind else _set_values(optimizer)), "lr": short["lr"]}
    if "patience" in short:
        values["watch"] = {**_set_values(values.get("watch")), "patience": short["patience"]}
    if "plateau" in short:
        watch = _set_values(values.get("watch"))
        values["watch"] = {**watch, "plateau": {**_set_values(watch.get("plateau")), "patience": short["plateau"]}}
    try:
        checked = Settings.model_validate(values)
    except ValidationError as error:
        raise _argument_error(problems_of(error, Settings)[0], short) from None
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


def _set_values(value: Any) -> dict[str, Any]:
    """The keys of a mapping, or the fields of a model that were set; {} for another value."""
    if isinstance(value, Strict):
        return {name: getattr(value, name) for name in value.model_fields_set}
    return dict(value) if isinstance(value, Mapping) else {}


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
    value: Any = Settings().model_dump()
    keys: list[str] = []
    for key in map(str, problem.path):
        if not isinstance(value, dict) or key not in value:
            break
        value = value[key]
        keys.append(key)
    for key in reversed(keys[1:]):
        value = {key: value}
    return f"{keys[0]}={value!r}"
