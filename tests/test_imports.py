"""What importing costs: nothing but what is asked for."""

import json
import os
import resource
import subprocess
import sys

import pytest

import moebius as mb

HEAVY = ("torch", "numpy", "pandas", "altair", "datasets", "sklearn", "scipy", "pydantic", "accelerate", "PIL")


def loaded_by(code):
    """Which heavy packages a fresh interpreter has loaded after `code`."""
    code += f"\nimport sys, json; print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "code",
    [
        "import moebius",
        "import moebius; dir(moebius); moebius.MoebiusError",
        "import moebius.kit.registry, moebius.kit.files",
        "import moebius.lab.recipe",
    ],
)
def test_nothing_heavy_is_loaded(code):
    assert loaded_by(code) == []


def test_the_command_line_loads_nothing_heavy():
    assert loaded_by("import moebius.lab.cli") == []


def test_the_core_loads_torch_and_little_else():
    assert set(loaded_by("import moebius as mb; mb.Mixture; mb.record; mb.gates.Linear")) <= {"torch", "numpy"}


@pytest.mark.parametrize("name", mb.__all__)
def test_every_public_name_is_there(name):
    assert getattr(mb, name) is not None
    assert name in dir(mb)


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="module 'moebius' has no attribute 'mixture_of_experts'"):
        _ = mb.mixture_of_experts


def cpu_seconds(*arguments):
    """The least time that the processor worked for a command: whatever else runs on a core can only add to it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True, env=environment)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


def test_importing_adds_little_to_torch():
    # In one process, where the difference is not one of two large numbers.
    code = (
        "import torch, time; begun = time.process_time(); import moebius; bare = time.process_time() - begun\n"
        "moebius.Mixture; print(bare, time.process_time() - begun)"
    )
    times = []
    for _ in range(5):
        result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        times.append([float(word) for word in result.stdout.split()])
    bare, used = map(min, zip(*times, strict=True))  # whatever else runs on a core can only add
    assert bare < 0.05
    assert used < 0.15


def test_help_answers_at_once():
    # What prints the help of any such command takes most of the time, and more where other work slows the processor.
    printing = cpu_seconds("-c", "import typer.rich_utils, typer.main, rich.markdown, rich.traceback")
    assert cpu_seconds("-m", "moebius", "--help") < 0.15 + 1.2 * printing
