"""Conformance tests that any distribution, or a file of your own, can hold its components to.

Every room of the library has a contract: what each gate, router, loss … has to do so that all others work with it. A
check is a function that raises a `ContractError`, which names the component and the broken rule. Nothing here needs
pytest. A file with a gate of its own and its tests:

    import pytest, torch, moebius as mb
    from moebius.testing import cases

    @mb.register("gates")
    class FirstPixels(torch.nn.Module):
        ...

    @pytest.mark.parametrize(("name", "check"), cases("gates"))
    def test_gates(name, check):
        check()

`cases(room)` has every kind of a room, `check_component(room, kind)` runs all checks of one, and `check_gate`,
`check_router` … take a class that no registry knows.

Example:
    >>> import torch, moebius as mb
    >>> class FirstPixels(torch.nn.Module):
    ...     def __init__(self, experts: int):
    ...         super().__init__()
    ...         if experts < 1:
    ...             raise mb.ArgumentError("experts", "needs at least 1", experts, "experts=2")
    ...         self.experts = experts
    ...     def forward(self, x):
    ...         return x.flatten(1)[:, : self.experts]
    >>> check_gate(FirstPixels)
    >>> class Sorted(FirstPixels):
    ...     def forward(self, x):
    ...         return super().forward(x).sort(0).values
    >>> check_gate(Sorted)
    Traceback (most recent call last):
    ...
    moebius.testing._contract.ContractError: gates Sorted: scores rows by their place: permuted rows differ. ...
"""

from moebius.testing._contract import ContractError as ContractError
from moebius.testing.augmentation import check_augmentation as check_augmentation
from moebius.testing.cases import cases as cases
from moebius.testing.cases import check_component as check_component
from moebius.testing.combine import check_combine as check_combine
from moebius.testing.diagnostics import check_diagnostic as check_diagnostic
from moebius.testing.execution import check_execution as check_execution
from moebius.testing.experts import check_expert as check_expert
from moebius.testing.gates import check_gate as check_gate
from moebius.testing.illnesses import check_illness as check_illness
from moebius.testing.integrations import check_integration as check_integration
from moebius.testing.layers import check_layer as check_layer
from moebius.testing.losses import check_loss as check_loss
from moebius.testing.padding import compare_masked as compare_masked
from moebius.testing.remedies import check_remedy as check_remedy
from moebius.testing.routers import check_router as check_router
from moebius.testing.schedules import check_schedule as check_schedule
from moebius.testing.sources import check_source as check_source
from moebius.testing.tasks import check_task as check_task
from moebius.testing.ways import check_way as check_way
