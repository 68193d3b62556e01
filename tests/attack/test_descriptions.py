"""Descriptions of saved mixtures that name what their files do not have: one error names the file or the argument."""

import json
import time

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import moebius as mb
from moebius.kit.errors import MoebiusError
from moebius.lab.predict.forward import computable


def change(folder, edit):
    path = folder / "model.safetensors"
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["moebius"])
    header.pop("digest", None)
    tensors = load_file(path)
    edit(header, tensors)
    save_file(tensors, path, {"moebius": json.dumps(header)})


def set_features(header, tensors):
    header["spec"]["gate"]["features"] = "four"


def set_kind(header, tensors):
    header["spec"]["gate"]["kind"] = -1


def set_router(header, tensors):
    header["spec"]["router"] = 7


def set_alias(header, tensors):
    header["aliases"] = {"a": "b"}


def set_type(header, tensors):
    tensors["gate.linear.weight"] = tensors["gate.linear.weight"].bool()


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (set_features, r"gate\.features: needs int, got 'four'"),
        (set_kind, r"and kind -1"),
        (set_router, r"router: needs .*Router"),
        (set_alias, r"it has no tensor 'b'"),
        (set_type, r"gate\.linear\.weight: its tensor .* has the type torch\.bool in the file"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(edit, reason, tmp_path):
    mb.save(mb.Mixture(mb.gates.Linear(4, 2), [mb.experts.Linear(4, 3) for _ in range(2)]), tmp_path)
    mb.load(tmp_path)
    change(tmp_path, edit)
    with pytest.raises(MoebiusError, match=reason) as caught:
        mb.load(tmp_path)
    assert caught.value.fix


def test_a_layer_of_countless_experts_is_refused_at_once(tmp_path):
    mb.save(mb.layers.SparseFFN(4, 8, experts=2, k=1), tmp_path)
    change(tmp_path, lambda header, tensors: header["spec"].update(experts=10**12))
    begun = time.process_time()
    with pytest.raises(MoebiusError, match="describes larger parts"):
        mb.load(tmp_path)
    assert time.process_time() - begun < 5


@pytest.mark.parametrize("error", [AssertionError, AttributeError, StopIteration])
def test_a_fault_of_moebius_is_no_damaged_file(error, tmp_path):
    with pytest.raises(error), computable(tmp_path):
        raise error
    with pytest.raises(MoebiusError), computable(tmp_path):
        torch.zeros(2) @ torch.zeros(3)
