import numpy as np
import pytest
import torch

import moebius as mb
from moebius.lab.diagnostics import Drops, RoutedRows


def rows_of(experts, count, capacity):
    """Rows that want an expert each, in turn until it is full."""
    wanted = torch.eye(count, dtype=torch.bool)[experts]
    kept = wanted & (wanted.cumsum(0) <= capacity)
    refused = wanted & ~kept
    return RoutedRows(kept.float(), kept=kept, k=1, dropped=refused.sum(1), refused=refused)


def test_worked_literal():
    frame = Drops.of(rows_of(torch.tensor([0, 0, 0, 1]), 2, 2)).set_index("expert")
    assert frame["assignments"].to_dict() == {-1: 4, 0: 3, 1: 1}
    assert frame["dropped"].tolist() == pytest.approx([1 / 4, 1 / 3, 0])
    assert frame["unserved"].tolist() == pytest.approx([1 / 4, 1 / 3, 0])


def test_the_null_is_a_random_balanced_router_of_the_same_capacity():
    random, dropped = torch.Generator().manual_seed(0), []
    measure = Drops()
    for _ in range(300):
        rows = rows_of(torch.randint(8, (100,), generator=random), 8, 14)
        dropped.append(int(rows.dropped.sum()) / 100)
        measure.update(rows)
    line = measure.frame().iloc[0]
    assert line["dropped"] == pytest.approx(np.mean(dropped))
    # A batch without drops may have had room: the null counts it as 0, as does the router.
    assert line["null"] == pytest.approx(np.mean(dropped), rel=0.1)


def test_of_a_router_with_a_capacity():
    torch.manual_seed(0)
    router = mb.routers.Switch(capacity=1.0).train()
    routing = router(torch.randn(64, 4) + torch.tensor([2.0, 0, 0, 0]))
    line = Drops.of(RoutedRows.from_routing(routing)).iloc[0]
    assert line["assignments"] == 64
    assert line["dropped"] == line["unserved"] == float(routing.aux["dropped"]) / 64
    assert line["dropped"] > line["null"]


def test_without_drops_nothing_is_expected():
    frame = Drops.of(rows_of(torch.tensor([0, 1]), 2, 5))
    assert frame[["dropped", "null", "unserved"]].to_numpy().max() == 0
