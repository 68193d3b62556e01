"""The experts of a stack that somebody took from it, and what has become of them since."""

import threading
import weakref
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from moebius.core.module_views import LIST, difference_of_view, guarded_view, record_tensors, replaced_part
from moebius.kit.errors import MoebiusError

# Threads that call one stack's experts, and take some from it, do so one after another.
_ONE = threading.RLock()


class ExpertViews:
    """Experts by their numbers: those that differ from the others, or were just taken, are kept; others may go.

    Arguments:
        experts: views that were handed out.
    """

    def __init__(self, experts: Mapping[int, nn.Module] | None = None):
        self.kept: dict[int, nn.Module] = dict(experts or {})
        self.loose: dict[int, weakref.ref[nn.Module]] = {}

    def __bool__(self) -> bool:
        return bool(self.kept or self.loose)

    def there(self) -> dict[int, nn.Module]:
        """Those that are still there."""
        loose = {number: expert for number, ref in self.loose.items() if (expert := ref()) is not None}
        return loose | self.kept

    def take(self, number: int, template: nn.Module, tensors: Sequence[Tensor]) -> nn.Module:
        """The expert with this number, with the stack's present tensors: the same object as long as it is there."""
        with _ONE:
            expert = self.there().get(number)
            if expert is None:
                expert = guarded_view(template, tensors, number)
            elif replaced_part(expert) is None:
                record_tensors(expert, tensors)
            self.kept[number] = expert
        return expert

    def particulars(self, template: nn.Module) -> dict[int, nn.Module]:
        """Those that have hooks, a mode or settings of their own.

        Raises:
            MoebiusError: a part or a tensor of one was replaced, which a stack cannot hold.
        """
        with _ONE:
            there = self.there()
            for number, expert in there.items():
                change = replaced_part(expert)
                if change is not None:
                    rule = f"an expert of a stack was changed, and that has no effect: {change}"
                    raise MoebiusError(f"experts.{number}: {rule}", f"{LIST}    # first; then the change")
            found = {
                number: expert for number, expert in there.items() if difference_of_view(expert, template) is not None
            }
            # Nobody has to keep what is as it was; whoever keeps it may still change it.
            self.kept = dict(found)
            self.loose = {number: weakref.ref(expert) for number, expert in there.items() if number not in found}
        return found

    def differ(self, template: nn.Module) -> bool:
        """Whether one of them is not like the others, or was changed."""
        experts = self.there().values()
        return any(
            replaced_part(expert) is not None or difference_of_view(expert, template) is not None for expert in experts
        )
