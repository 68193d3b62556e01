"""An executor from what a user writes for one."""

import importlib
import inspect
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from moebius.kit.errors import ArgumentError, MissingExtraError
from moebius.kit.registry import find
from moebius.lab.study.executor import Executor

# What a user may write for an executor.
ExecutorLike = Executor | str | Mapping[str, Any]


def as_executor(executor: ExecutorLike) -> Executor:
    """The executor that is meant by an object, a kind, or a mapping of a kind and keywords.

    Raises:
        ArgumentError: it is none of these, or a keyword is refused.
        UnknownKindError: no executor is of this kind.
        MissingExtraError: its package is not installed.

    Example:
        >>> type(as_executor("local")).__name__
        'Local'
    """
    if isinstance(executor, Executor):
        return executor
    if isinstance(executor, str):
        executor = {"kind": executor}
    if not isinstance(executor, Mapping) or "kind" not in executor:
        rule = "needs an executor, a kind, or a mapping of a kind and keywords"
        raise ArgumentError("executor", rule, executor, 'executor={"kind": "ray", "cpus": 2}')
    keywords = {name: value for name, value in executor.items() if name != "kind"}
    make = find("study.executors", executor["kind"])
    names = inspect.signature(make).parameters
    for name, value in keywords.items():
        if name not in names:
            fix = f"options of {executor['kind']}: {', '.join(names) or 'none'}"
            raise ArgumentError("executor", f"{executor['kind']} has no option {name}", value, fix)
    return make(**keywords)


def import_extra(name: str) -> ModuleType:
    """The package of an executor, which the extra of the same name installs.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        rule = f"executor {name} needs the package of this name ({error})"
        raise MissingExtraError(rule, f"pip install 'moebius[{name}]'") from None
