import torch

import moebius as mb


def test_of_half_precision_it_is_the_product_in_float32():
    torch.manual_seed(0)
    x = torch.randn(50, 64).bfloat16()
    gate, plain = mb.gates.Float32Linear(64, 8).bfloat16(), mb.gates.Linear(64, 8)
    plain.load_state_dict(gate.state_dict())
    assert gate(x).dtype == torch.float32
    assert torch.equal(gate(x), plain(x.float()))
    assert not torch.equal(gate(x), plain.bfloat16()(x).float())


def test_without_half_precision_it_is_the_linear_gate():
    x = torch.randn(5, 7, 16, dtype=torch.float64)
    gate, plain = mb.gates.Float32Linear(16, 4, bias=False).double(), mb.gates.Linear(16, 4, bias=False).double()
    plain.load_state_dict(gate.state_dict())
    assert torch.equal(gate(x), plain(x))
    assert gate(x).shape == (5, 7, 4)
