"""Progressive layered extraction (PLE): levels of shared and own experts."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from moebius.kit.errors import ArgumentError
from moebius.layers.cgc import CGC, SHARED


class PLE(nn.Module):
    """Levels of shared experts and experts of each task, which separate what tasks share step by step.

    x_k^0 = x_shared^0 = x;  x_k^j, x_shared^j = CGC_j(x_1^(j−1), …, x_shared^(j−1));  y_k = tower_k(x_k^J)

    A level's gates see the outputs of the level before: those of their own task, or of the shared path. All levels but
    the last have a gate called "shared"; the last has the towers.

    Routings are recorded of the gates: `log["levels.0.gates.click"]`, `log["levels.0.gates.shared"]`.

    Arguments:
        levels: at least one `CGC`, each of the same tasks. The gates and experts of a level take the width of the
            experts' outputs of the level before.

    Shapes: x (batch…, features…) → task → (batch…, outputs…).

    Raises:
        ArgumentError: there are no levels, or something else than a `CGC`; the tasks of two levels differ; a level
            before the last has no shared gate or has towers, or the last has a shared gate.

    Example:
        >>> import torch
        >>> tasks = ("click", "price")
        >>> def level(features, shared=True, towers=None):  # one expert for each task, and one shared expert
        ...     gates = {task: nn.Linear(features, 2) for task in tasks}
        ...     own = {task: [nn.Linear(features, 6)] for task in tasks}
        ...     gates |= {"shared": nn.Linear(features, 3)} if shared else {}
        ...     return CGC(gates, own, [nn.Linear(features, 6)], towers)
        >>> model = PLE([level(4), level(6, shared=False, towers={task: nn.Linear(6, 1) for task in tasks})])
        >>> {task: tuple(y.shape) for task, y in model(torch.zeros(5, 4)).items()}
        {'click': (5, 1), 'price': (5, 1)}

    Reference: Tang, Liu, Zhao, Gong 2020, Progressive Layered Extraction (PLE): A Novel Multi-Task Learning Model for
    Personalized Recommendations, section 4.2.
    """

    def __init__(self, levels: Iterable[CGC]):
        super().__init__()
        self.levels = nn.ModuleList(levels)
        _check_levels(list(self.levels))

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the tasks."""
        return self.levels[-1].tasks  # type: ignore[return-value]

    def forward(
        self, x: Tensor, context: Mapping[str, Tensor] | None = None, mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Run the levels one after another.

        Arguments:
            x: rows.
            context: side information for gates, experts and towers whose forward takes a context: tensors with x's
                first axis; also `with mb.context(…)`.
            mask: True for real rows, with the batch axes; also `with mb.context(mask=…)`. The outputs of padding are 0.

        Returns: task → output.
        """
        values: Any = x
        for level in self.levels:
            values = level(values, context, mask)
        return values

    @staticmethod
    def example(facts: Mapping[str, int]) -> dict[str, Any]:
        """Arguments that fit each other, for the checks of `moebius.testing`."""
        first, last = CGC.example(facts), CGC.example({**facts, "features": 6})
        del first["towers"], last["gates"][SHARED]
        return {"levels": [CGC(**first), CGC(**last)]}


def _check_levels(levels: list[Any]) -> None:
    if not levels:
        raise ArgumentError("levels", "needs at least one level", [], "levels=[mb.layers.CGC(…)]")
    for number, level in enumerate(levels):
        name, is_last = f"levels.{number}", number == len(levels) - 1
        if not isinstance(level, CGC):
            raise ArgumentError(name, "needs a CGC", type(level).__name__, "mb.layers.CGC(gates, experts, shared)")
        if set(level.tasks) != set(levels[0].tasks):
            rule = f"needs the tasks of levels.0, {', '.join(levels[0].tasks)}"
            raise ArgumentError(name, rule, level.tasks, "gates and experts of the same names in every level")
        if level.has_shared_output and is_last:
            rule = "must have no gate of the shared path, for no level follows"
            raise ArgumentError(f"{name}.gates", rule, list(level.gates), f"gates without {SHARED!r}")
        if not level.has_shared_output and not is_last:
            rule, fix = (
                "needs a gate of the shared path, which the next level reads",
                "mb.gates.Linear(features, experts)",
            )
            raise ArgumentError(f"{name}.gates", rule, list(level.gates), f"gates={{…, {SHARED!r}: {fix}}}")
        if level.towers is not None and not is_last:
            rule = "must be None before the last level, whose towers give the outputs"
            raise ArgumentError(f"{name}.towers", rule, list(level.towers), "towers=None")
