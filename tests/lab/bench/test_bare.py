"""The bare products do the work of the layer, and no other."""

import pytest
from torch.utils.flop_counter import FlopCounterMode

from moebius.lab.bench import Workload
from moebius.lab.bench.bare import bare_products


@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
@pytest.mark.parametrize(("mode", "products"), [("forward", 1), ("forward+backward", 3)])
def test_the_work_is_that_of_the_experts(activation, mode, products):
    workload = Workload(dim=8, hidden=16, experts=4, k=2, rows=12, activation=activation)
    call = bare_products(workload, mode)
    with FlopCounterMode(display=False) as counter:
        call()
    assert counter.get_total_flops() == 2 * products * workload.active_multiply_adds
