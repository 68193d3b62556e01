"""Kinds from a file or a session of the user: `register` names them, `load_plugin` runs a file that does."""

import hashlib
import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from moebius.kit.errors import MoebiusError, UnknownKindError
from moebius.kit.registry import ROOMS, did_you_mean, register_kind

Component = TypeVar("Component", bound=Callable[..., Any])


def register(room: str, kind: str | None = None) -> Callable[[Component], Component]:
    """Decorate a class or a function: from now on it is a kind of a room, for recipes, `mb.save` and `mb.load`.

    In a file that `moebius run RECIPE --plugin FILE` loads, it adds kinds to the recipe's rooms. A distribution adds
    kinds by entry points instead (`moebius.gates`, …), and needs no registration.

    Arguments:
        room: where the kind belongs: gates, routers, experts, combine, execution, layers, losses, schedules,
            diagnostics, data.sources, data.augmentation, illnesses, remedies or study.executors.
        kind: its name in recipes; unless given, the component's name in lower case with underscores.

    Raises:
        UnknownKindError: no room is called so.
        MoebiusError: the room has another component of this kind.

    Example:
        >>> import torch, moebius as mb
        >>> @register("gates")
        ... class FirstPixels(torch.nn.Module):
        ...     def __init__(self, experts: int):
        ...         super().__init__()
        ...         self.experts = experts
        ...     def forward(self, x):
        ...         return x.flatten(1)[:, : self.experts]
        >>> mb.gates.FirstPixels is FirstPixels
        True

    Reference: ours.
    """
    if room not in ROOMS:
        raise UnknownKindError(f"no room is called {room!r}", did_you_mean(room, ROOMS))

    def decorate(component: Component) -> Component:
        register_kind(room, kind or snake_case(component.__name__), component)
        return component

    return decorate


def snake_case(name: str) -> str:
    """The kind that a component's name stands for.

    Example:
        >>> snake_case("NoisyTopK"), snake_case("MLP"), snake_case("batch_entropy")
        ('noisy_top_k', 'mlp', 'batch_entropy')
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def load_plugin(path: str | Path) -> str:
    """Run a Python file that registers kinds; a file that is loaded already is not run again.

    Returns:
        The SHA-256 of the file: results depend on what it says.

    Raises:
        MoebiusError: there is no such file, or running it fails.
    """
    file = Path(path).resolve()
    try:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise MoebiusError(f"plugin {path}: cannot be read ({error.strerror})", "the path of a Python file") from None
    name = f"moebius_plugin_{digest[:16]}"
    if name in sys.modules:
        return digest
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise MoebiusError(f"plugin {path}: is no Python file", "a file whose name ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        if isinstance(error, MoebiusError):
            raise
        rule = f"plugin {path}: running it failed, {type(error).__name__}: {error}"
        raise MoebiusError(rule, f"python {path}    # shows where") from error
    return digest
