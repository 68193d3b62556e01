"""Every execution keeps the contract of `moebius.testing.execution`; a new one is tested by being there.

The oracle is the loop over the experts as modules without a stack, in float64.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moebius.kit.registry import find, kinds
from moebius.testing import cases
from moebius.testing.execution import CHECKS, POOLS, TOLERANCES, compare_with_loop

EVERY = pytest.mark.parametrize("kind", kinds("execution"))
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
ON = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NO_GPU)])


def refuses(kind, name, dtype, device):
    """Whether an execution is not for these experts where a router selects; one that is not named takes all."""
    made_of = POOLS[name][2]
    return {
        "stacked": True,
        "padded": made_of != "ffn",
        "gather": made_of not in ("ffn", "dense"),
        "grouped": made_of not in ("ffn", "dense") or dtype != torch.bfloat16,
        "fused": made_of != "ffn" or device == "cpu" or dtype == torch.float64,
    }.get(kind, False)


@st.composite
def choices(draw):
    """Rows, experts, and the assignments between them: rows, experts, kept; None where every expert sees every row."""
    rows, experts = draw(st.integers(0, 7)), draw(st.integers(1, 4))
    how = draw(st.sampled_from(["any", "any", "k", "one expert", "nothing kept", "all"]))
    if how == "all":
        return rows, experts, None
    if how == "k":
        k = draw(st.integers(1, experts))
        pairs = [(row, expert) for row in range(rows) for expert in draw(st.permutations(range(experts)))[:k]]
    elif how == "one expert":
        chosen = draw(st.integers(0, experts - 1))
        pairs = [(row, chosen) for row in range(rows)]
    else:
        # One row may come twice to one expert.
        pair = st.tuples(st.integers(0, max(0, rows - 1)), st.integers(0, experts - 1))
        pairs = draw(st.lists(pair, max_size=12 if rows else 0))
    kept = [draw(st.booleans()) if how == "any" else how != "nothing kept" for _ in pairs]
    return rows, experts, ([row for row, _ in pairs], [expert for _, expert in pairs], kept)


def check(kind, name, dtype, device, drawn, seed):
    return compare_with_loop(find("execution", kind)(), name, dtype, drawn, seed, device)


# The comparison with the loop is below, for assignments that are drawn, and on a GPU too.
COMPARED = [check.__name__ for check in CHECKS if "_of_the_loop_" in check.__name__]


@pytest.mark.parametrize(("name", "check"), cases("execution", COMPARED))
def test_every_execution(name, check):
    check()


@EVERY
@ON
@pytest.mark.parametrize("name", POOLS)
def test_outputs_and_gradients_are_the_loops(kind, name, device):
    formats = [dtype for dtype in TOLERANCES if not refuses(kind, name, dtype, device)]
    if formats:
        examples = given(
            choices().filter(lambda drawn: drawn[2] is not None), st.sampled_from(formats), st.integers(0, 9)
        )
        run = examples(lambda drawn, dtype, seed: require_run(check(kind, name, dtype, device, drawn, seed)))
        settings(max_examples=8)(run)()
    for dtype in TOLERANCES.keys() - formats:
        assert not check(kind, name, dtype, device, (2, 2, ([0, 1], [1, 0], [True, True])), 0)


def require_run(ran):
    assert ran


@EVERY
@ON
@pytest.mark.parametrize("name", POOLS)
def test_so_they_are_where_every_expert_sees_every_row(kind, name, device):
    for rows, count, dtype in ((5, 3, torch.float64), (1, 1, torch.float32), (0, 2, torch.bfloat16)):
        # No two of these experts are equal.
        assert check(kind, name, dtype, device, (rows, count, None), 0) or (kind, name) == ("stacked", "unlike")
