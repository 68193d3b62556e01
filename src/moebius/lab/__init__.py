"""The lab: data, training, diagnostics, recipes, studies, reports and the command `moebius`.

It needs the packages of the extra `lab`; the library beside it needs none of them, and imports nothing from here.
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from moebius.kit.errors import MissingExtraError

# Import names of the packages that only the lab uses.
NEEDED = (
    *("altair", "datasets", "filelock", "huggingface_hub", "jinja2", "kornia", "pandas", "PIL"),
    *("pyarrow", "pydantic", "rich", "ruamel", "scipy", "sklearn", "typer", "vl_convert"),
)

_missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
if _missing:
    raise MissingExtraError(
        f"the lab of moebius (studies, fit, report, the command) needs packages that are not installed: "
        f"{', '.join(_missing)}",
        "pip install 'moebius[lab]'",
    )

if TYPE_CHECKING:
    from moebius.lab import (
        bench,
        comparison,
        compose,
        data,
        diagnostics,
        doctor,
        explorer,
        model,
        predict,
        recipe,
        report,
        study,
        training,
    )
    from moebius.lab.comparison.compare import compare
    from moebius.lab.comparison.seed_plan import plan_seeds
    from moebius.lab.doctor.diagnose import diagnose
    from moebius.lab.explorer.explore import explore
    from moebius.lab.study.run import run

__all__ = [
    "bench",
    "compare",
    "comparison",
    "compose",
    "data",
    "diagnose",
    "diagnostics",
    "doctor",
    "explore",
    "explorer",
    "model",
    "plan_seeds",
    "predict",
    "recipe",
    "report",
    "run",
    "study",
    "training",
]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        # Loaded when first used: the command's help must not wait for torch.
        if name == "run":
            return importlib.import_module("moebius.lab.study.run").run
        if name == "compare":
            return importlib.import_module("moebius.lab.comparison.compare").compare
        if name == "plan_seeds":
            return importlib.import_module("moebius.lab.comparison.seed_plan").plan_seeds
        if name == "diagnose":
            return importlib.import_module("moebius.lab.doctor.diagnose").diagnose
        if name == "explore":
            return importlib.import_module("moebius.lab.explorer.explore").explore
        if name in __all__:
            return importlib.import_module(f"moebius.lab.{name}")
        raise AttributeError(f"module 'moebius.lab' has no attribute {name!r}")
