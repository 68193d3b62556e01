"""torch.export and ONNX: programs say what the models say, for any number of rows."""

import importlib.util

import pytest
import torch

import moebius as mb

pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec:FutureWarning")  # of torch.export, about itself
ROWS = (1, 3, 64)


def program_of(model, x, **options):
    return torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), **options)


def test_a_program_says_the_same(model, batch):
    program = program_of(model.eval(), batch(rows=2)[0]).module()
    for rows in ROWS:
        x = batch(rows=rows)[0]
        torch.testing.assert_close(program(x), model(x))


def test_a_program_has_the_models_names_and_its_gradients(model, batch):
    x = batch(rows=64)[0]
    program = program_of(model.eval(), x)
    assert set(program.state_dict) == set(model.state_dict())
    run = program.module()
    run(x).square().sum().backward()
    model(x).square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in run.named_parameters()}
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-6)


def test_a_saved_program_runs_and_takes_other_values(model, other, batch, tmp_path):
    x = batch(rows=3)[0]
    torch.export.save(program_of(model.eval(), x), tmp_path / "moe.pt2")
    program = torch.export.load(tmp_path / "moe.pt2").module()
    torch.testing.assert_close(program(x), model(x))
    program.load_state_dict(other.state_dict())
    torch.testing.assert_close(program(x), other.eval()(x))


@pytest.mark.skipif(importlib.util.find_spec("onnxscript") is None, reason="pip install 'moebius[export]'")
def test_an_onnx_file_says_the_same(model, batch, tmp_path):
    import onnxruntime

    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert mb.export(model, batch(rows=16)[0], tmp_path / "moe.onnx") < 1e-5
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    session = onnxruntime.InferenceSession(tmp_path / "moe.onnx")
    model.eval()
    for rows in ROWS:
        x = batch(rows=rows)[0]
        (y,) = session.run(None, {"x": x.numpy()})
        torch.testing.assert_close(torch.from_numpy(y), model(x).detach(), rtol=1e-4, atol=1e-5)
