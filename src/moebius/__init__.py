"""moebius: mixtures of experts you can build, understand and run fast.

Names load when first used, so that importing the package costs nothing beyond Python itself.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:  # what editors and type checkers see; `tests/test_typing.py` keeps it and the tables below in step
    from moebius import (
        combine,
        convert,
        distributed,
        execution,
        experts,
        gates,
        integrations,
        lab,
        layers,
        losses,
        routers,
        schedules,
        tasks,
    )
    from moebius.combine.head_maximum import HeadMaximum
    from moebius.combine.head_mean import HeadMean
    from moebius.combine.log_mixture import LogMixture
    from moebius.combine.weighted_sum import WeightedSum
    from moebius.core.loss_needs import needs
    from moebius.core.recording import call, record
    from moebius.core.routing import Router, Routing, Selection, step_routers
    from moebius.core.row_context import context
    from moebius.core.stack import Stack
    from moebius.execution._contract import Execution
    from moebius.integrations._watch import watch
    from moebius.kit.allocator import tune_allocator
    from moebius.kit.errors import ArgumentError, MoebiusError
    from moebius.kit.plugins import register
    from moebius.lab.compose.compose import compose
    from moebius.lab.doctor.diagnose import diagnose
    from moebius.lab.explorer.explore import explore
    from moebius.lab.study.model_report import report
    from moebius.lab.training.fit import fit
    from moebius.layers.mixture import Mixture
    from moebius.storage.editing import add_expert, drop_expert, replace_expert
    from moebius.storage.export import export
    from moebius.storage.load import load
    from moebius.storage.save import save
    from moebius.tasks._task import Task

_ROOMS = (
    "gates",
    "routers",
    "experts",
    "combine",
    "convert",
    "distributed",
    "execution",
    "integrations",
    "layers",
    "losses",
    "schedules",
    "tasks",
)
_NAMES = {
    "Mixture": "layers.mixture",
    "Stack": "core.stack",
    "Routing": "core.routing",
    "Selection": "core.routing",
    "Router": "core.routing",
    "Execution": "execution._contract",
    "step_routers": "core.routing",
    "record": "core.recording",
    "call": "core.recording",
    "watch": "integrations._watch",
    "needs": "core.loss_needs",
    "register": "kit.plugins",
    "context": "core.row_context",
    "WeightedSum": "combine.weighted_sum",
    "LogMixture": "combine.log_mixture",
    "HeadMean": "combine.head_mean",
    "HeadMaximum": "combine.head_maximum",
    "MoebiusError": "kit.errors",
    "ArgumentError": "kit.errors",
    "Task": "tasks._task",
    "tune_allocator": "kit.allocator",
    "save": "storage.save",
    "load": "storage.load",
    "export": "storage.export",
    "add_expert": "storage.editing",
    "drop_expert": "storage.editing",
    "replace_expert": "storage.editing",
}
# What the extra `lab` brings: name → its module below moebius.lab, and what it is called there.
_LAB = {
    "lab": ("", None),
    "fit": ("training.fit", "fit"),
    "report": ("study.model_report", "report"),
    "compose": ("compose.compose", "compose"),
    "diagnose": ("doctor.diagnose", "diagnose"),
    "explore": ("explorer.explore", "explore"),
}

__all__ = [
    "ArgumentError",
    "Execution",
    "HeadMaximum",
    "HeadMean",
    "LogMixture",
    "Mixture",
    "MoebiusError",
    "Router",
    "Routing",
    "Selection",
    "Stack",
    "Task",
    "WeightedSum",
    "__version__",
    "add_expert",
    "call",
    "combine",
    "compose",
    "context",
    "convert",
    "diagnose",
    "distributed",
    "drop_expert",
    "execution",
    "experts",
    "explore",
    "export",
    "fit",
    "gates",
    "integrations",
    "lab",
    "layers",
    "load",
    "losses",
    "needs",
    "record",
    "register",
    "replace_expert",
    "report",
    "routers",
    "save",
    "schedules",
    "step_routers",
    "tasks",
    "tune_allocator",
    "watch",
]


if not TYPE_CHECKING:  # for a checker, what is not named above does not exist

    def __getattr__(name: str) -> Any:
        if name in _ROOMS:
            return importlib.import_module(f"moebius.{name}")
        if name in _NAMES:
            value = getattr(importlib.import_module(f"moebius.{_NAMES[name]}"), name)
        elif name in _LAB:
            from moebius.kit.extras import lab

            value = lab(*_LAB[name])
        else:
            raise AttributeError(f"module 'moebius' has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
