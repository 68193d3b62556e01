import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "kill_resume.py"


@pytest.mark.slow
def test_killed_studies_end_in_the_uninterrupted_bits(tmp_path):
    times, path = 20, tmp_path / "figures.json"
    command = [sys.executable, str(SCRIPT), "--times", str(times), "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("same bits") == times
    bits, seconds = json.loads(path.read_text())
    assert set(bits) == set(seconds) == {"name", "value", "unit", "versus", "ratio", "spread"}
    assert (bits["value"], bits["ratio"]) == (times, 1.0)
    assert seconds["value"] > 0
