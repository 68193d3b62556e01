import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "kill_resume.py"
FORKS = ("single", "cohort", "stages")


@pytest.mark.parametrize(
    ("times", "kinds"),
    [
        pytest.param(5, FORKS, marks=pytest.mark.thorough, id="forks"),
        pytest.param(6, (*FORKS, "workers", "processes"), marks=pytest.mark.slow, id="all"),
    ],
)
def test_killed_studies_end_in_the_uninterrupted_bits(tmp_path, times, kinds):
    path = tmp_path / "figures.json"
    command = [sys.executable, str(SCRIPT), "--times", str(times), "--json", str(path), "--kinds", *kinds]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("· same bits\n") == times * len(kinds)
    assert " at step " in done.stdout
    rows = json.loads(path.read_text())
    assert [(row["value"], row["ratio"]) for row in rows] == [(times, 1.0)] * len(kinds)
