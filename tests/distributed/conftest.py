"""The results of models on several processes."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

FOLDER = Path(__file__).parent


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which the processes of `processes.py` have written."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # the workers of one session share the results
        folder = folder.parent
    folder = folder / "distributed"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            folder.mkdir()
            done = subprocess.run(
                [sys.executable, str(FOLDER / "processes.py"), str(folder)],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=600,
            )
            (folder / "output").write_text(f"{done.returncode}\n{done.stdout}", encoding="utf-8")
    return folder


@pytest.fixture
def result(results: Path) -> Callable[[str], Any]:
    """Reads one result; fails with the error where there was one."""

    def read(name: str) -> Any:
        error = results / f"{name}.error"
        assert not error.exists(), error.read_text(encoding="utf-8")
        assert (results / name).exists(), (results / "output").read_text(encoding="utf-8")
        return torch.load(results / name)

    return read
