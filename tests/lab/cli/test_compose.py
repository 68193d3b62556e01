"""`moebius compose` of saved models: what it prints, writes and refuses."""

import json

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import moebius as mb
from moebius.lab.cli import app


@pytest.fixture
def folders(tmp_path):
    """Two saved networks, each of which sees the class in a feature of its own, and a file of rows."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, 2, (600,), generator=generator)
    x = (2 * y - 1).unsqueeze(1) + 2 * torch.randn(600, 2, generator=generator)
    paths = []
    for number in range(2):
        network = mb.experts.Linear(2, 2)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.zero_()
            next(network.parameters())[:, number] = torch.tensor([-0.5, 0.5])
        paths.append(str(tmp_path / f"network-{number}"))
        mb.save(network, paths[-1])
    save_file({"x": x, "y": y}, tmp_path / "rows.safetensors")
    return paths, tmp_path


def call(*arguments):
    return CliRunner().invoke(app, ["compose", *map(str, arguments)])


def test_a_mixture_is_recommended_and_saved(folders):
    paths, tmp = folders
    ways = ["--way", "uniform", "--way", "weighted"]
    result = call(*paths, "--data", tmp / "rows.safetensors", "--out", tmp / "mix", "--abstain", "0.75", *ways)
    assert result.exit_code == 0, result.output
    assert result.output.startswith("Take ")
    assert "answered rows have an accuracy of at least 0.75" in result.output
    model = mb.load(tmp / "mix")
    assert model(torch.zeros(3, 2)).shape == (3, 3)
    assert (tmp / "mix" / "composition.json").exists()
    facts = json.loads(call(*paths, "--data", tmp / "rows.safetensors", "--out", tmp / "b", "--json", *ways).stdout)
    assert {way["way"] for way in facts["ways"]} == {"best-single", "uniform", "weighted"}
    assert facts["recommended"] in ("uniform", "weighted")
    assert facts["front"][0] == "best-single"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--cost", "fast"], "cost: "),
        (["--rows", "cross_fit:2"], "needs 5 folds"),
        (["--at-most", "0.3:network-9"], "needs one of network-0, network-1"),
        (["--way", "stuck"], "no way is called 'stuck'"),
        (["--data", "missing.safetensors"], "cannot be read"),
    ],
)
def test_bad_input_is_one_error(folders, options, complaint):
    paths, tmp = folders
    data = [] if "--data" in options else ["--data", tmp / "rows.safetensors"]
    ways = [] if "--way" in options else ["--way", "uniform"]
    result = call(*paths, *data, "--out", tmp / "mix", *ways, *options)
    assert result.exit_code == 2
    assert complaint in result.output.replace("\n", " ")
    assert "Traceback" not in result.output
    assert not (tmp / "mix").exists()
