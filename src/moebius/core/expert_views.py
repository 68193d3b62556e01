"""The views of single experts that a stack has handed out, and which of them were changed since."""

import threading
import weakref
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from moebius.core.module_views import (
    UNSTACK_FIX,
    describe_replacement,
    describe_view_difference,
    guarded_view,
    record_origin,
)
from moebius.kit.errors import MoebiusError

# Threads that run or take experts of one stack create and classify its views one after another.
_LOCK = threading.RLock()


class ExpertViews:
    """Guarded views of a stack's experts, by their numbers.

    Views that differ from the template, or were handed out since the last check, are kept alive; the others only as
    long as somebody else refers to them.

    Arguments:
        views: expert number → view, to begin with.
    """

    def __init__(self, views: Mapping[int, nn.Module] | None = None):
        self.strong_views: dict[int, nn.Module] = dict(views or {})
        self.weak_views: dict[int, weakref.ref[nn.Module]] = {}

    def __bool__(self) -> bool:
        return bool(self.strong_views or self.weak_views)

    def live_views(self) -> dict[int, nn.Module]:
        """Expert number → view, of the views that still exist."""
        weak = {number: expert for number, ref in self.weak_views.items() if (expert := ref()) is not None}
        return weak | self.strong_views

    def provide_view(self, number: int, template: nn.Module, tensors: Sequence[Tensor]) -> nn.Module:
        """The view of the expert with this number, on these tensors: the same object as long as it exists."""
        with _LOCK:
            expert = self.live_views().get(number)
            if expert is None:
                expert = guarded_view(template, tensors, number)
            elif describe_replacement(expert) is None:
                record_origin(expert, tensors)
            self.strong_views[number] = expert
        return expert

    def differing_experts(self, template: nn.Module) -> dict[int, nn.Module]:
        """Expert number → view, of the views whose hooks, mode or settings are not those of the template.

        Raises:
            MoebiusError: a part or a tensor of a view was replaced, which a stack cannot hold.
        """
        with _LOCK:
            views = self.live_views()
            for number, expert in views.items():
                replacement = describe_replacement(expert)
                if replacement is not None:
                    rule = f"an expert of a stack was changed, and that has no effect: {replacement}"
                    raise MoebiusError(f"experts.{number}: {rule}", f"{UNSTACK_FIX}    # first; then the change")
            differing = {
                number: expert
                for number, expert in views.items()
                if describe_view_difference(expert, template) is not None
            }
            # An unchanged view may be collected; whoever refers to it can still change it.
            self.strong_views = dict(differing)
            self.weak_views = {
                number: weakref.ref(expert) for number, expert in views.items() if number not in differing
            }
        return differing

    def has_changes(self, template: nn.Module) -> bool:
        """Whether a view differs from the template, or a part or a tensor of one was replaced."""
        return any(
            describe_replacement(expert) is not None or describe_view_difference(expert, template) is not None
            for expert in self.live_views().values()
        )
