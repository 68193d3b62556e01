"""What tests of all rooms share."""

import functools
import inspect
import json
import os
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, get_args

import jaxtyping
import pytest
import torch
from hypothesis import settings

CHECKED_CALLS = 100
calls: Counter[str] = Counter()
_jaxtyped = jaxtyping.jaxtyped


def _names_arrays(annotation: Any) -> bool:
    """Whether an annotation has a shape in it; of one that is still text nobody knows."""
    if isinstance(annotation, list | tuple):
        return any(map(_names_arrays, annotation))
    is_array = inspect.isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray)
    return isinstance(annotation, str) or is_array or _names_arrays(get_args(annotation))


def _check_types(typechecker: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """How often the arguments of a function of moebius are checked.

    jaxtyping binds the arguments of a call to look for shapes, which took more than half of the tests' time. A function
    whose signature has no shape is checked by beartype alone; the shapes of one that has are checked at its first
    CHECKED_CALLS calls in each test: the later steps of a training loop have those of the first.
    """

    def decorate(function: Any) -> Any:
        if not inspect.isfunction(function):
            return _jaxtyped(function, typechecker=typechecker)
        if not any(map(_names_arrays, function.__annotations__.values())):
            return typechecker(function)
        checked, name = _jaxtyped(function, typechecker=typechecker), f"{function.__module__}.{function.__qualname__}"

        @functools.wraps(checked)
        def count_calls(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            calls[name] += 1
            return (checked if calls[name] <= CHECKED_CALLS else function)(*args, **kwargs)

        return count_calls

    return decorate


jaxtyping.jaxtyped = _check_types  # before the first import of moebius

import moebius as mb  # noqa: E402
from moebius.kit import registry  # noqa: E402

# The machine may be busy: an example that takes long is no failure. The examples are the same on every run.
settings.register_profile("moebius", deadline=None, derandomize=True, max_examples=30, database=None)
settings.load_profile("moebius")


@pytest.fixture(autouse=True)
def count_of_checked_calls() -> None:
    """Every test checks the shapes of its first calls."""
    calls.clear()


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
    """What a script that compiles says of a case: None, or an error.

    The script runs once for its quick cases and once for all others, when the first of them is asked for.
    """
    outcomes: dict[tuple[Path, bool], dict[str, str | None]] = {}

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
        lines = map(json.loads, done.stdout.splitlines())
        return {case: outcome for line in lines for case, outcome in line.items()}

    def choose(script: Path, cases: list[str], quick: Collection[str]) -> Callable[[str], str | None]:
        def outcome(case: str) -> str | None:
            key = script, case in quick
            if key not in outcomes:
                outcomes[key] = run(script, [case for case in cases if (case in quick) == key[1]])
            return outcomes[key][case]

        return outcome

    return choose


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for what is kept between calls in the place of the user's, also for processes that the tests start."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def transformers():
    """The library, whose import warns of this and that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("transformers", reason="transformers is not installed: pip install -e '.[dev]'")
