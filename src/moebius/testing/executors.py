"""The contract of executors: a study's jobs → finished runs; needs the extra `lab`."""

import importlib
from collections.abc import Callable
from typing import Any

from moebius.testing._contract import require
from moebius.testing._run import run_checks
from moebius.testing._subject import Subject


def check_executor(executor: Callable[..., Any], **arguments: Any) -> None:
    """Hold an executor to the contract of the room `study.executors`: every function of `CHECKS`.

    Arguments:
        executor: the class.
        arguments: for the constructor.

    Raises:
        ContractError: the first rule that it breaks.

    Example:
        >>> from moebius.lab.study.executors import Local
        >>> check_executor(Local)

    Reference: ours.
    """
    run_checks(CHECKS, Subject("study.executors", executor, arguments))


def does_jobs_and_keeps_its_demands(subject: Subject) -> None:
    """It is an `Executor` that keeps the `cpus` and `gpus` it takes, names its place, and closes before any job."""
    kind = importlib.import_module("moebius.lab.study.executor").Executor
    demands = {name: count for name, count in (("cpus", 2), ("gpus", 0)) if subject.takes(name)}
    instance = subject.component(**{**demands, **subject.arguments})
    require(isinstance(instance, kind), f"gives a {type(instance).__name__}", "class Mine(Scheduler)")
    kept = {name: getattr(instance, name) for name in demands}
    require(kept == demands or bool(subject.arguments), f"keeps {kept}", "super().__init__(cpus, gpus)")
    require(instance.place is not None, "names no place", "the property `place` of Executor")
    instance.close()


CHECKS = (does_jobs_and_keeps_its_demands,)
