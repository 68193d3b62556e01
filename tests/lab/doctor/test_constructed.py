"""The doctor names what was built into a mixture, and accuses no healthy one."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from moebius.kit.registry import kinds


@pytest.mark.thorough
def test_names_95_of_100_illnesses_and_accuses_at_most_one_healthy_mixture(capsys):
    # In a process of its own: there the many small functions are not checked for the types of their arguments.
    command = [sys.executable, Path(__file__).with_name("constructed.py")]
    cases = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    sick, well = [case for case in cases if case["kind"]], [case for case in cases if case["kind"] is None]
    missed = [case for case in sick if case["kind"] not in case["findings"]]
    accused = [case for case in well if case["findings"]]
    with capsys.disabled():
        print(f"\n{len(sick) - len(missed)} of {len(sick)} named, {len(accused)} of {len(well)} healthy accused")
        print("missed:", missed, "accused:", accused)
    per_kind = Counter(case["kind"] for case in sick)
    assert len(cases) >= 60
    assert len(well) >= 20
    assert set(per_kind) == {kind.replace("_", " ") for kind in kinds("illnesses")}
    assert min(per_kind.values()) >= 2
    assert len(missed) <= 0.05 * len(sick)
    assert len(accused) <= 1
