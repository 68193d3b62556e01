"""moebius: mixtures of experts you can build, understand and run fast.

Names load when first used, so that importing the package costs nothing beyond Python itself.
"""

import importlib
from typing import Any

from moebius.version import __version__

_ROOMS = (
    "gates",
    "routers",
    "experts",
    "losses",
    "schedules",
    "execution",
    "combine",
    "layers",
    "data",
    "diagnostics",
    "training",
)
_NAMES = {
    "Mixture": "mixture",
    "Stack": "stack",
    "Routing": "routing",
    "Selection": "routing",
    "Router": "routing",
    "Execution": "execution._contract",
    "step_routers": "routing",
    "record": "recording",
    "call": "recording",
    "context": "frame",
    "WeightedSum": "combine.weighted_sum",
    "LogMixture": "combine.log_mixture",
    "HeadMean": "combine.head_mean",
    "HeadMaximum": "combine.head_maximum",
    "MoebiusError": "errors",
    "tune_allocator": "allocator",
    "fit": "training.fit",
    "save": "saving",
    "load": "saving",
    "export": "exporting",
    "add_expert": "editing",
    "drop_expert": "editing",
    "replace_expert": "editing",
}

__all__ = ["__version__", *_ROOMS, *_NAMES]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"moebius.{name}")
    if name in _NAMES:
        value = getattr(importlib.import_module(f"moebius.{_NAMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'moebius' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
