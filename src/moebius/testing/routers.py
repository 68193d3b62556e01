"""The contract of routers: scores → `Routing`, and what a router declares holds."""

from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from torch.utils import _pytree as pytree

from moebius.core.routing import Router, Routing
from moebius.testing._contract import (
    DTYPES,
    require,
    require_close,
    require_dtype,
    require_equal,
    require_shape,
)
from moebius.testing._router_gradients import GRADIENT_CHECKS
from moebius.testing._router_in_mixture import MIXTURE_CHECKS
from moebius.testing._router_scores import EXPERTS, MODES, make_scores
from moebius.testing._run import run_checks
from moebius.testing._subject import Sample, Subject
from moebius.testing._variation import vary_arguments


def check_router(router: Callable[..., Router], experts: int = EXPERTS, **arguments: Any) -> None:
    """Hold a router to the contract of the room `routers`: every function of `CHECKS`.

    Arguments:
        router: the class, or a function that makes a new router.
        experts: E for arguments of this name; the scores are of four experts.
        arguments: for the constructor.

    Raises:
        ContractError: the first rule that the router breaks, with the declaration to change where it is one.

    Example:
        >>> import moebius as mb
        >>> check_router(mb.routers.TopK, k=2)
        >>> class Halves(mb.routers.Soft):
        ...     rows_sum_to = 0.5
        >>> check_router(Halves)
        Traceback (most recent call last):
        ...
        moebius.testing._contract.ContractError: routers Halves: declares rows_sum_to = 0.5 and gives others. ...

    Reference: ours.
    """
    run_checks(CHECKS, Subject("routers", router, arguments, Sample(experts=experts, classes=3)))


def is_a_router(subject: Subject) -> None:
    """It is a subclass of `moebius.Router`, whose attributes declare what can be relied on."""
    require(isinstance(subject.make(), Router), "is no moebius.Router", "class …(moebius.Router)")


def gives_a_whole_routing_in_float32_at_least(subject: Subject) -> None:
    """All tensors are (T, E), never NaN and in float32 at least; a distribution's rows sum to 1."""
    for (rows, experts), dtype, training in product([(7, 4), (1, 4), (0, 4), (7, 1)], DTYPES, MODES):
        router = subject.make(experts=experts).train(training)
        routing = router(make_scores(router, rows, experts, dtype))
        wide = torch.promote_types(dtype, torch.float32)
        for name in ("probs", "weights", "log_weights"):
            value = getattr(routing, name)
            require_shape(value, (rows, experts), name)
            require_dtype(value, wide, name)
            require(not value.isnan().any(), f"gives {name} that are NaN")
        require_shape(routing.scores, (rows, experts), "scores")
        require(routing.experts == experts, f"gives a routing of {routing.experts} experts, needs {experts}")
        if routing.distribution:
            rule = "gives probs that are no distribution, and a routing with distribution=True"
            require_close(routing.probs.sum(-1), torch.ones(rows, dtype=wide), rule, fix="distribution=False")


def has_weights_that_sum_to_what_it_declares(subject: Subject) -> None:
    """A row's weights sum to `rows_sum_to`; where that is None they are at least 0."""
    for training in MODES:
        router = subject.make().train(training)
        weights = router(make_scores(router, 50)).weights
        if router.rows_sum_to is None:
            require((weights >= 0).all(), "gives weights below 0")
        else:
            rule = f"declares rows_sum_to = {router.rows_sum_to} and gives others"
            expected = torch.full((50,), router.rows_sum_to)
            require_close(weights.sum(-1), expected, rule, fix="rows_sum_to = None")


def gives_the_logarithm_of_its_weights(subject: Subject) -> None:
    """`log_weights` are the logarithms of `weights`, and −inf where these are 0."""
    for training in MODES:
        router = subject.make().train(training)
        routing = router(make_scores(router, 50))
        require_close(routing.log_weights.exp(), routing.weights, "gives log_weights that are not the log of weights")
        rule = "gives log_weights that are −inf elsewhere than where weights are 0"
        require_equal(routing.log_weights == -torch.inf, routing.weights == 0, rule)


def weighs_only_experts_that_it_chose(subject: Subject) -> None:
    """At most `max_active` weights of a row are not 0, and they are those of the selection's kept assignments."""
    for training in MODES:
        router = subject.make().train(training)
        routing = router(make_scores(router, 50))
        active, most = (routing.weights != 0).sum(-1).max().item(), router.max_active(EXPERTS)
        require(active <= most, f"declares max_active of {most} and gives a row {active} experts")
        if routing.selection is not None:
            selection, weights = routing.selection, torch.zeros(50, EXPERTS)
            kept = selection.kept_A
            place = (selection.row_A[kept], selection.expert_A[kept])
            weights.index_put_(place, selection.weight_A[kept], accumulate=True)
            require_close(routing.weights, weights, "gives weights that are not those of the kept assignments")


def selects_where_a_row_may_have_fewer_than_all_experts(subject: Subject) -> None:
    """In eval a router with `max_active` < E gives a selection, whose parts have one entry for each assignment."""
    router = subject.make().eval()
    if router.max_active(EXPERTS) < EXPERTS:
        selection = router(make_scores(router, 9)).selection
        require(selection is not None, "chooses fewer than all experts and gives no selection")
        lengths = {len(part) for part in (selection.row_A, selection.expert_A, selection.weight_A, selection.kept_A)}
        require(len(lengths) == 1, f"gives a selection whose parts have the lengths {sorted(lengths)}")


def selects_a_pair_once_at_most(subject: Subject) -> None:
    """No row has two kept assignments to the same expert."""
    router = subject.make()
    selection = router(make_scores(router, 30)).selection
    if selection is not None:
        pairs = (selection.row_A * EXPERTS + selection.expert_A)[selection.kept_A]
        require(len(pairs.unique()) == len(pairs), "selects a pair of row and expert more than once")


def has_weights_that_are_the_view_of_heads_and_classes(subject: Subject) -> None:
    """`weights` are `head_weights` summed over heads and averaged over classes, each row up to a factor."""
    router = subject.make().eval()
    routing = router(make_scores(router, 9))
    if routing.head_weights is not None:
        view = routing.head_weights.sum(1).mean(-1)
        ratio = routing.weights.sum(-1, keepdim=True) / view.sum(-1, keepdim=True)
        require_close(view * ratio, routing.weights, "gives weights that are not the view of its head_weights")


def routes_rows_by_themselves_where_it_declares_so(subject: Subject) -> None:
    """With `rows_independent` a row alone has the weights that it has among others, in eval."""
    router = subject.make().eval()
    if router.rows_independent:
        scores = make_scores(router, 20)
        alone = torch.cat([router(scores[row : row + 1]).weights for row in range(20)])
        rule = "declares rows_independent and routes a row by the rows beside it"
        require_close(alone, router(scores).weights, rule, fix="rows_independent = False")


def permuting_rows_permutes_weights(subject: Subject) -> None:
    """A row's weights do not depend on its place, in eval."""
    router, order = subject.make().eval(), torch.arange(20).flip(0)
    scores = make_scores(router, 20)
    rule = "routes rows by their place: permuted rows differ"
    require_close(router(scores[order]).weights, router(scores).weights[order], rule)


def permuting_experts_permutes_weights_where_it_declares_so(subject: Subject) -> None:
    """With `interchangeable` experts that swap their scores swap their weights, in eval."""
    router, order = subject.make().eval(), torch.tensor([2, 0, 3, 1])
    if router.interchangeable:
        scores = make_scores(router, 20)
        # The same order in each block of E numbers of the gate.
        places = torch.cat([order + start for start in range(0, router.gate_outputs(EXPERTS), EXPERTS)])
        rule = "declares interchangeable and weighs experts by their place"
        expected = router(scores).weights[:, order]
        require_close(router(scores[:, places]).weights, expected, rule, fix="interchangeable = False")


def routes_the_same_twice_in_eval(subject: Subject) -> None:
    """In eval the same scores have the same weights."""
    router = subject.make().eval()
    scores = make_scores(router, 20)
    rule = "gives other weights for the same scores in eval"
    require_equal(router(scores).weights, router(scores).weights, rule, "noise only while self.training")


def moves_nothing_that_routes_in_a_forward(subject: Subject) -> None:
    """A second forward with the same noise routes as the first: activation checkpoints repeat forwards.

    It holds for the defaults and for other values of the arguments, such as a rate at which a bias moves.
    """
    for arguments in ({}, vary_arguments(subject)):
        router = subject.make(**arguments)
        scores = make_scores(router, 9)
        torch.manual_seed(0)
        first = router(scores)
        torch.manual_seed(0)
        rule = "moves in a forward what routes: a repeated forward differs"
        require_equal(router(scores).weights, first.weights, rule, "count in forward, move in step()")


def gives_a_routing_that_is_a_pytree(subject: Subject) -> None:
    """A routing that is taken apart into tensors and put together is the same."""
    router = subject.make()
    routing = router(make_scores(router, 6))
    require(isinstance(routing, Routing), f"gives a {type(routing).__name__}, needs a moebius.Routing")
    leaves, spec = pytree.tree_flatten(routing)
    again = pytree.tree_unflatten(leaves, spec)
    rule = "gives a routing that its tensors do not rebuild"
    require_equal(again.weights, routing.weights, rule)
    require(again.distribution == routing.distribution, rule)


def takes_a_k_of_all_experts_and_more(subject: Subject) -> None:
    """With k = E and k = E + 2 all experts are active, for routers with an argument `k`."""
    for k in (EXPERTS, EXPERTS + 2) if subject.takes("k") else ():
        router = subject.make(k=k)
        routing = router(make_scores(router, 9))
        require(router.max_active(EXPERTS) == EXPERTS, f"has max_active of {router.max_active(EXPERTS)} for k = {k}")
        require_shape(routing.weights, (9, EXPERTS), "weights")
        if router.rows_sum_to is not None:
            require_close(routing.weights.sum(-1), torch.ones(9), f"gives weights that do not sum to 1 for k = {k}")


def counts_what_it_drops(subject: Subject) -> None:
    """`aux["dropped"]` counts dropped assignments, unless the selection has all pairs of row and expert."""
    router = subject.make()
    routing = router(make_scores(router, 40))
    selection = routing.selection
    if selection is not None and not selection.kept_A.all():
        counted = "dropped" in routing.aux or len(selection.row_A) == 40 * EXPERTS
        require(counted, 'drops assignments and gives no aux["dropped"]', 'aux={"dropped": …}')


CHECKS = (
    is_a_router,
    gives_a_whole_routing_in_float32_at_least,
    has_weights_that_sum_to_what_it_declares,
    gives_the_logarithm_of_its_weights,
    weighs_only_experts_that_it_chose,
    selects_where_a_row_may_have_fewer_than_all_experts,
    selects_a_pair_once_at_most,
    has_weights_that_are_the_view_of_heads_and_classes,
    routes_rows_by_themselves_where_it_declares_so,
    permuting_rows_permutes_weights,
    permuting_experts_permutes_weights_where_it_declares_so,
    routes_the_same_twice_in_eval,
    moves_nothing_that_routes_in_a_forward,
    gives_a_routing_that_is_a_pytree,
    takes_a_k_of_all_experts_and_more,
    counts_what_it_drops,
    *GRADIENT_CHECKS,
    *MIXTURE_CHECKS,
)
