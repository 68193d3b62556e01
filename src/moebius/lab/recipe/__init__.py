"""Recipes: a YAML file names data, training and the models to compare, and becomes a validated `Recipe`.

Names are imported on first use: listing the shipped recipes does not wait for torch.
"""

import importlib
from typing import Any

_NAMES = {
    "DataSpec": "schema",
    "Recipe": "schema",
    "ReportSpec": "schema",
    "Variant": "schema",
    "guess_facts": "check",
    "load_recipe": "load",
    "shipped": "shipped",
}


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'moebius.lab.recipe' has no attribute {name!r}")
    return getattr(importlib.import_module(f"moebius.lab.recipe.{_NAMES[name]}"), name)
