"""What tests of all rooms share."""

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import jaxtyping
import pytest
import torch
from hypothesis import settings

_jaxtyped = jaxtyping.jaxtyped


def _names_arrays(annotation: Any) -> bool:
    """Whether an annotation has a shape in it; of one that is still text nobody knows."""
    if isinstance(annotation, list | tuple):
        return any(map(_names_arrays, annotation))
    is_array = inspect.isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray)
    return isinstance(annotation, str) or is_array or _names_arrays(get_args(annotation))


def _check_types(typechecker: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """jaxtyping binds the arguments of every call to look for shapes: a third of the tests' time.

    A function whose signature has no shape is checked by beartype alone.
    """

    def decorate(checked: Any) -> Any:
        if inspect.isfunction(checked) and not any(map(_names_arrays, checked.__annotations__.values())):
            return typechecker(checked)
        return _jaxtyped(checked, typechecker=typechecker)

    return decorate


jaxtyping.jaxtyped = _check_types  # before the first import of moebius

import moebius as mb  # noqa: E402
from moebius.kit import registry  # noqa: E402

# The machine may be busy: an example that takes long is no failure. The examples are the same on every run.
settings.register_profile("moebius", deadline=None, derandomize=True, max_examples=30, database=None)
settings.load_profile("moebius")


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """A study and a bench set the number of threads of their process; the next test has the number of before."""
    before = torch.get_num_threads()
    yield
    if torch.get_num_threads() != before:
        torch.set_num_threads(before)


@pytest.fixture
def register(monkeypatch):
    """`mb.register` whose kinds are forgotten when the test ends, so that tests that walk a room do not meet them."""
    monkeypatch.setattr(registry, "_plugins", {room: dict(kinds) for room, kinds in registry._plugins.items()})
    return mb.register


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the real MNIST and CIFAR-10, which lies beside the checkout."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    for name in ("mnist", "cifar10"):
        if not list((folder / name).glob("train-*.parquet")):
            pytest.skip(f"the real {name} is not at {folder / name}")
    return folder


@pytest.fixture(scope="session")
def two_at_once():
    """Runs a script as two processes that work together: `python SCRIPT [arguments] RANK FOLDER`."""

    def run(script: Path, folder: Path, *arguments: str) -> None:
        # A script of its own, since a test module has no name that another process could import it by.
        running = [
            subprocess.Popen(
                [sys.executable, str(script), *arguments, str(rank), str(folder)],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in range(2)
        ]
        try:
            texts = [process.communicate(timeout=120)[0] for process in running]
        finally:
            for process in running:
                process.kill()
        assert [process.returncode for process in running] == [0, 0], "\n".join(texts)

    return run


@pytest.fixture(scope="session")
def outcomes_of(tmp_path_factory):
    """Runs a script that compiles, with a cache of its own, and gives what it says of each case: None, or an error."""

    def run(script: Path, cases: list[str]) -> dict[str, str | None]:
        cache = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path_factory.mktemp("inductor"))}
        done = subprocess.run(
            [sys.executable, str(script), *cases],
            env={**os.environ, "OMP_NUM_THREADS": "1", **cache},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        outcomes = {}
        for line in done.stdout.splitlines():
            outcomes |= json.loads(line)
        return outcomes

    return run
