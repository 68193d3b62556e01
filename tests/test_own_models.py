"""The example of own models runs as it stands, and is as short as it says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent.parent / "examples" / "own_models.py"


@pytest.mark.thorough
def test_three_unlike_networks_become_one_model_in_under_forty_lines():
    assert len([line for line in EXAMPLE.read_text(encoding="utf-8").splitlines() if line.strip()]) < 40
    done = subprocess.run([sys.executable, EXAMPLE], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    oracle, accuracy = map(float, re.findall(r"(?:choice|accuracy) (\d\.\d+)", done.stdout))
    assert oracle > 0.95
    assert accuracy > 0.8
    shares = [float(share) for share in re.findall(r"\d\.\d\d", done.stdout.split("by expert")[1])]
    assert len(shares) == 3
    assert abs(sum(shares) - 1) < 0.02
    assert sum(share > 0.2 for share in shares) >= 2
