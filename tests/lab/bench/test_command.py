import json

import pytest
import torch
from typer.testing import CliRunner

from moebius.kit.registry import kinds
from moebius.lab.cli import app

TINY = ["--dim", "8", "--hidden", "16", "--experts", "4", "--rows", "12", "--rounds", "1", "--device", "cpu"]


def invoke(*arguments: str, columns: int = 120):
    return CliRunner(env={"COLUMNS": str(columns)}).invoke(app, ["bench", *arguments])


@pytest.mark.parametrize("columns", [80, 120])
def test_the_tables_name_every_execution_and_fit_the_width(columns):
    result = invoke(*TINY, "--untuned", columns=columns)
    assert result.exit_code == 0, result.output
    for name in set(kinds("execution")) - {"auto"}:
        assert name in result.output
    for text in ("sorted ← auto", "auto picks sorted", "The sparse layer", "left as it comes", "GB/s"):
        assert text in result.output
    assert max(map(len, result.output.splitlines())) <= columns


def test_figures_as_json(tmp_path):
    path = tmp_path / "bench.json"
    result = invoke(*TINY, "--untuned", "--json", str(path), "--forward-only", "--dtype", "bf16", "--no-bias")
    assert result.exit_code == 0, result.output
    figures = json.loads(path.read_text())
    assert figures["workload"]["bias"] is False
    assert figures["workload"]["dtype"] == "bf16"
    assert figures["chosen"]["name"] == "padded"
    assert "left as it comes" in figures["allocator"]
    times = {cost["name"]: cost["times"]["forward"]["value"] for cost in figures["costs"]}
    assert all(value > 0 for value in times.values())
    assert {"loop", "sorted", "padded", "grouped"} <= set(times)
    assert figures["verdict"] in result.output.replace("\n", " ").replace("  ", " ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--k", "9"], "k: a row cannot go through more than the 4 experts, got 9"),
        (["--dim", "0"], "dim: needs a whole number of at least 1, got 0"),
        (["--activation", "rleu"], "activation: needs one of gelu"),
        (["--json", "nowhere/x.json"], "needs a file in a folder that exists"),
    ],
)
def test_one_error_and_exit_2(arguments, message):
    result = invoke(*TINY, "--untuned", *arguments)
    assert result.exit_code == 2
    assert result.output.count("error:") == 1
    assert message in result.output


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_no_gpu():
    result = invoke(*TINY, "--device", "cuda")
    assert result.exit_code == 2
    assert "this PyTorch sees no GPU" in result.output
