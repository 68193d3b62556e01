import pytest
import torch

from moebius.kit.errors import ArgumentError
from moebius.lab.bench import Workload

TINY = {"dim": 4, "hidden": 6, "experts": 3, "k": 2, "rows": 5}


def test_multiply_adds_and_bytes_by_hand():
    workload = Workload(**TINY)
    # 5 rows in 2 experts each: 4·6 + 6·4 multiply-adds for each.
    assert workload.active_multiply_adds == 5 * 2 * (24 + 24)
    assert workload.total_multiply_adds == 5 * 3 * (24 + 24)
    # 24 + 6 numbers in the first layer, 24 + 4 in the second, of 4 bytes.
    assert workload.expert_bytes == 4 * (30 + 28)


def test_gated_experts_have_three_matrices_and_bf16_takes_half():
    workload = Workload(**TINY, activation="swiglu", bias=False, dtype="bf16")
    assert workload.active_multiply_adds == 5 * 2 * 3 * 24
    assert workload.expert_bytes == 2 * 3 * 24


@pytest.mark.parametrize("activation", ["gelu", "geglu"])
@pytest.mark.parametrize("bias", [True, False])
def test_an_expert_has_the_computed_number_of_parameters(activation, bias):
    workload = Workload(**TINY, activation=activation, bias=bias)
    count = sum(parameter.numel() for parameter in workload.make_layer().mixture.experts[0].parameters())
    assert count == workload.expert_parameters


def test_layer_and_rows_have_the_format():
    workload = Workload(**TINY, dtype="bf16")
    rows = workload.draw_rows(7)
    assert rows.shape == (7, 4)
    assert workload.make_layer()(rows).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("change", "argument"),
    [
        ({"dim": 0}, "dim"),
        ({"rows": -1}, "rows"),
        ({"k": 4}, "k"),
        ({"activation": "rleu"}, "activation"),
        ({"dtype": "fp8"}, "dtype"),
        ({"device": "tpu"}, "device"),
    ],
)
def test_invalid_arguments_are_refused(change, argument):
    with pytest.raises(ArgumentError) as caught:
        Workload(**{**TINY, **change})
    assert caught.value.argument == argument
