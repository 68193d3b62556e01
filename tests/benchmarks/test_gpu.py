"""The plan for a GPU: it runs dry without one, ends by its deadlines, keeps what it has, and goes on."""

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from moebius.lab.recipe.load import load_recipe

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks"
needs_triton = pytest.mark.skipif(sys.platform != "linux", reason="there is no Triton for this system")


@pytest.fixture(scope="module")
def modules():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        import _gpu_conditions
        import _gpu_plan
        import _gpu_results
        import _gpu_rule
        import _gpu_studies

        together = (_gpu_conditions, _gpu_results, _gpu_rule, _gpu_studies, _gpu_plan)
        yield SimpleNamespace(**{name: value for module in together for name, value in vars(module).items()})
        for name in [name for name in sys.modules if name.startswith("_gpu_") or name in ("steps", "stacked_runs")]:
            del sys.modules[name]


def run_dry(folder, *options):
    command = [sys.executable, str(FOLDER / "gpu.py"), "--dry", "--minutes", "10", "--runs", str(folder), *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@needs_triton
def test_a_dry_part_writes_figures(tmp_path):
    result = run_dry(tmp_path, "--only", "speed", "--json", str(tmp_path / "figures.json"))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "these figures mean nothing" in result.stdout
    assert "speed     finished" in result.stdout
    (line,) = read_lines(tmp_path / "speed-dry.jsonl")
    assert line["state"] == "done"
    names = [figure["name"] for figure in line["figures"]]
    assert any(name.endswith("backward, fused") for name in names)
    assert any(name.endswith("backward, grouped") for name in names)
    assert set(line["not_run"]) <= {"ScatterMoE", "SonicMoE"}
    assert json.loads((tmp_path / "figures.json").read_text()) == line["figures"]


@needs_triton
@pytest.mark.thorough
def test_the_whole_plan_runs_dry(tmp_path):
    result = run_dry(tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    for part in ("kernels", "speed", "rule", "studies", "cohorts"):
        assert all(line["state"] == "done" for line in read_lines(tmp_path / f"{part}-dry.jsonl"))
        assert f"{part:<9} finished" in result.stdout
    assert "left:" not in result.stdout
    assert result.stdout.count(": fastest ") == 2  # a line of the rule for each size


def test_a_part_is_ended_at_its_deadline_and_what_it_wrote_is_there(modules, tmp_path):
    path = tmp_path / "part.jsonl"
    script = tmp_path / "part.py"
    script.write_text(
        textwrap.dedent(f"""
        import subprocess, sys, time
        from pathlib import Path
        sys.path.insert(0, {str(FOLDER)!r})
        from _gpu_results import Results
        results = Results(Path({str(path)!r}))
        results.add("first", [], 0.1)
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        results.add("second", [], 0.1, child=child.pid)
        time.sleep(600)
        """)
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    seconds = 1.0
    while not path.exists() or len(read_lines(path)) < 2:  # a busy machine takes a while to start the process
        path.unlink(missing_ok=True)
        seconds *= 2
        code, taken = modules.run_process([sys.executable, str(script)], seconds, environment)
    assert code is None
    assert seconds <= taken < seconds + 30
    lines = modules.Results(path).lines()
    assert [line["state"] for line in lines.values()] == ["done", "done"]
    child = Path(f"/proc/{lines['second']['child']}/stat")
    for _ in range(100):
        if not child.exists() or child.read_text().split()[2] == "Z":
            break
        time.sleep(0.1)
    else:
        raise AssertionError("a process of the part is still there")


def test_items_stop_before_the_deadline_and_those_done_are_skipped(modules, tmp_path, monkeypatch):
    calls = []

    def fail():
        calls.append("fails")
        raise ValueError("on purpose")

    items = {"works": lambda: (calls.append("works"), ([], {"fact": 1}))[1], "fails": fail}
    monkeypatch.setitem(modules.run_items.__globals__, "make_items", lambda part, conditions: items)
    late = modules.Conditions(True, time.time() + 0.5, tmp_path)
    modules.run_items("speed", late, {})
    assert calls == []
    in_time = modules.Conditions(True, time.time() + 600, tmp_path)
    modules.run_items("speed", in_time, {"card": "none"})
    modules.run_items("speed", in_time, {"card": "none"})
    assert calls == ["works", "fails", "fails"]  # what failed is tried again
    lines = modules.Results(tmp_path / "speed-dry.jsonl").lines()
    assert (lines["works"]["state"], lines["works"]["fact"], lines["works"]["card"]) == ("done", 1, "none")
    assert (lines["fails"]["state"], lines["fails"]["error"]) == ("failed", "ValueError: on purpose")


def test_a_line_that_was_cut_off_does_not_count(modules, tmp_path):
    results = modules.Results(tmp_path / "part.jsonl")
    results.add("first", [], 1.0)
    with results.path.open("a") as file:
        file.write('{"item": "second", "sta')
    assert list(results.lines()) == ["first"]
    results.add("third", [], 1.0)
    assert results.is_done("third")


def test_the_plan_for_a_gpu_names_what_exists(modules):
    conditions = modules.Conditions(False, float("inf"), Path("runs"))
    items = {part: list(modules.make_items(part, conditions)) for part in modules.SHARES}
    assert all(items.values())
    assert len({len(set(names)) - len(names) for names in items.values()}) == 1
    for study in modules.STUDIES:
        assert load_recipe(study.recipe, preset=study.preset).variants
    tests = [name.removeprefix("pytest ") for name in items["kernels"] if name.startswith("pytest")]
    assert tests
    assert all((ROOT / "tests" / "execution" / name).is_file() for name in tests)


def test_the_rule_names_the_fastest_and_what_auto_costs(modules):
    times = {"fused": 2.0, "grouped": 3.0, "dense": 9.0, "dense, equal active work": 1.0}
    figures = [{"name": f"{name}, forward+backward", "value": value} for name, value in times.items()]
    figures += [{"name": "grouped, forward", "value": 0.1}]
    lines = modules.rule_lines("a card", [{"item": "sizes", "auto": "grouped", "figures": figures}])
    assert lines[0].startswith("What is fastest on a card")
    assert lines[1:] == [
        "  sizes: fastest fused, auto grouped (1.50 × the fastest); fused 2, grouped 3, dense 9",
    ]
