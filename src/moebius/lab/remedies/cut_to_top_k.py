"""Cut to top-k: as few experts for each row as the loss allows."""

from torch import nn

from moebius.lab.illnesses._intervals import percent
from moebius.lab.remedies._case import Case, Obstacle, Treatment, remedy
from moebius.lab.training.evaluation import evaluate
from moebius.routers.cut import Cut

# What a cut may cost on the rows: of the loss, and of the score.
LOSS = 0.02
SCORE = 0.005


@remedy("work")
def cut_to_top_k(case: Case) -> Treatment | Obstacle:
    """The k experts with the largest weights run, which share a weight of 1: `mb.routers.Cut`. Nothing is trained.

    k is the least number for which the loss rises by less than a fiftieth and the score falls by less than .005 on the
    rows.

    Reference: ours; study 5 cuts to one expert.
    """
    place = case.place(case.call.model)
    most = place.router.max_active(place.count)
    if most < 2:
        return Obstacle("one expert runs for each row already")
    (before,) = evaluate(case.call, case.task, case.rows)
    costs = ""
    for k in _numbers(most):
        model = _cut(case, k)
        (after,) = evaluate(case.call_of(model), case.task.for_model(model), case.rows)
        rise, fall = after.loss - before.loss, before.score - after.score
        if rise < LOSS * abs(before.loss) and fall < SCORE:
            return Treatment(model, f"{k} of {place.count} experts {'runs' if k == 1 else 'run'} for each row")
        costs = costs or f"; k = {k} costs {percent(rise / abs(before.loss))} of the loss"
    return Obstacle(f"no k below {most} keeps loss and score{costs}")


def _numbers(most: int) -> list[int]:
    """The numbers that are tried: all up to 8, then every doubling."""
    return [k for k in (*range(1, 9), *(2**power for power in range(4, 20))) if k < most]


def _cut(case: Case, k: int) -> nn.Module:
    copied = case.copy()
    place = case.place(copied)
    router = place.router.router if isinstance(place.router, Cut) else place.router
    place.put(router=Cut(router, k))
    return copied
