"""The page of a model of one's own: its figures are those of the model, and nothing is shown that was not given."""

import json

import pandas as pd
import pytest
import torch
from torch import nn

import moebius as mb
from moebius.kit.errors import ArgumentError, StudyError


@pytest.fixture(scope="module")
def rows():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(160, 1, 6, 6, generator=generator)
    return x, (x.flatten(1).mean(1) > 0.5).long()


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    moe = mb.Mixture(mb.gates.Linear(36, 3), [nn.Linear(36, 2) for _ in range(3)])
    return nn.Sequential(nn.Flatten(), moe).train()


@pytest.fixture(scope="module")
def page(network, rows, tmp_path_factory):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    path = mb.report(network, rows, tmp_path_factory.mktemp("model") / "report", title="A network of my own")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training
    return path


def test_its_figures_are_those_of_the_model(page, network, rows):
    (run,) = json.loads((page.parent / "results.json").read_text())["runs"]
    output = network.eval()(rows[0])
    network.train()
    assert run["accuracy"] == {"test": pytest.approx((output.argmax(1) == rows[1]).double().mean().item())}
    assert run["loss"] == {"test": pytest.approx(nn.functional.cross_entropy(output, rows[1]).item(), rel=1e-5)}
    frame = pd.read_parquet(page.parent / "Sequential" / "seed-0" / "routing.parquet")
    assert set(frame["split"]) == {"test"}
    assert frame["prediction"].tolist() == output.argmax(1).tolist()
    text = page.read_text()
    assert "A network of my own" in text
    assert "160 test rows" in text or "160 test images" in text
    assert "training rows" not in text


def test_findings_are_those_of_the_doctor(page, network, rows):
    (run,) = json.loads((page.parent / "results.json").read_text())["runs"]
    findings = mb.diagnose(network, rows).findings
    assert [finding["code"] for finding in run["findings"]] == [finding.code for finding in findings]
    assert findings
    assert all(f"{finding.code} {finding.kind}" in page.read_text() for finding in findings)


def test_pictures_of_other_numbers_are_stretched(page, rows):
    from safetensors.numpy import load_file

    file = load_file(page.parent / "Sequential" / "seed-0" / "examples.safetensors")
    shown = rows[0][file["rows"]]
    expected = (shown - shown.min()) * 255 / (shown.max() - shown.min())
    assert torch.equal(torch.from_numpy(file["images"]), expected.round().to(torch.uint8))


@pytest.mark.parametrize(
    ("arguments", "keywords", "message", "fix"),
    [
        (("model", "rows"), {}, "needs a folder", "mb.report(model"),
        (("linear", "rows", "folder"), {}, "must be a mixture", "mb.diagnose(model, batches)"),
        (("model", None, "folder"), {}, "needs rows", "mb.report(model"),
    ],
)
def test_what_is_missing_is_named(network, rows, tmp_path, arguments, keywords, message, fix):
    values = {"model": network, "rows": rows, "linear": nn.Linear(2, 2), "folder": tmp_path / "report", None: None}
    with pytest.raises(ArgumentError, match=message) as caught:
        mb.report(*[values[name] for name in arguments], **keywords)
    assert fix in caught.value.fix
    assert not (tmp_path / "report").exists()


def test_a_folder_alone_is_a_study(tmp_path):
    with pytest.raises(StudyError, match="needs the folder of a study"):
        mb.report(tmp_path)
