"""Holm's correction of p values for several comparisons."""

from collections.abc import Sequence


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p values that may be compared with a level however many comparisons were made.

    p̃_(i) = max_{j ≤ i} min(1, (m − j + 1) p_(j)),  p_(1) ≤ … ≤ p_(m)

    The chance of calling any true hypothesis false is at most the level, whatever the p values have to do with each
    other. No comparison fares worse than by Bonferroni's factor m.

    Arguments:
        p_values: of the family; None for a comparison without one, which does not count in m.

    Returns:
        The corrected values in the same order.

    Example:
        >>> holm([0.01, 0.04, None, 0.03])
        [0.03, 0.06, None, 0.06]

    Reference: Holm 1979, A Simple Sequentially Rejective Multiple Test Procedure.
    """
    order = sorted((value, place) for place, value in enumerate(p_values) if value is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (value, place) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * value))
        corrected[place] = largest
    return corrected
