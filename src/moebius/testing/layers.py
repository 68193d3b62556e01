"""The contract of layers: sequences of tokens → one output for each token, and a record of their routing.

A layer may give several outputs, as a mapping from names (of tasks) to tensors: each of them is held to the rules.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from moebius.core.recording import record
from moebius.core.row_context import context
from moebius.testing._contract import (
    DTYPES,
    require,
    require_close,
    require_dtype,
    require_equal,
    require_gradients,
    require_kept_state,
    require_loadable,
    require_repeatable,
)
from moebius.testing._run import run_checks
from moebius.testing._subject import Sample, Subject
from moebius.testing.padding import poison

_SEQUENCES, _TOKENS = 3, 5
_MASK = torch.tensor([[True] * 5, [True, False, True, False, False], [False, False, True, True, True]])


def check_layer(layer: Callable[..., nn.Module], width: int = 64, **arguments: Any) -> None:
    """Hold a layer to the contract of the room `layers`: every function of `CHECKS`.

    Arguments:
        layer: the class, or a function that makes a new layer.
        width: D, of a token.
        arguments: for the constructor; `dim` and `features` are D, `experts` three linear layers or their number.

    Raises:
        ContractError: the first rule that the layer breaks.

    Example:
        >>> import moebius as mb
        >>> check_layer(mb.layers.SparseFFN, width=8, hidden=4, experts=3)

    Reference: ours.
    """
    run_checks(CHECKS, Subject("layers", layer, arguments, Sample(torch.rand(1, width))))


def gives_one_output_for_each_token(subject: Subject) -> None:
    """Outputs are (B, S, O) in the precision of the tokens, for three sequences and none."""
    for count in (_SEQUENCES, 0):
        for dtype in DTYPES:
            y = _run(subject.make().to(dtype), _tokens(subject, dtype)[:count])
            rule = f"gives outputs of shape {tuple(y.shape)} for ({count}, {_TOKENS}) tokens"
            require(y.shape[:-1] == (count, _TOKENS), rule)
            require_dtype(y, dtype, "outputs")


def treats_sequences_by_themselves(subject: Subject) -> None:
    """A sequence has the outputs that it has alone, in eval."""
    layer, x = subject.make().eval(), _tokens(subject)
    alone = torch.cat([_run(layer, sequence.unsqueeze(0)) for sequence in x])
    require_close(alone, _run(layer, x), "gives a sequence other outputs alone than among others")


def permuting_tokens_permutes_outputs(subject: Subject) -> None:
    """A token's output does not depend on its place in the sequence, in eval."""
    layer, x = subject.make().eval(), _tokens(subject)
    require_close(
        _run(layer, x.flip(1)), _run(layer, x).flip(1), "treats tokens by their place: permuted tokens differ"
    )


def gives_the_same_twice_in_eval_and_leaves_its_input(subject: Subject) -> None:
    """In eval the same tokens have the same outputs, and are not changed in place."""
    require_repeatable(partial(_run, subject.make().eval()), _tokens(subject), "tokens")


def keeps_its_state_where_there_are_no_tokens(subject: Subject) -> None:
    """A batch without sequences changes no parameter and no buffer."""
    layer = subject.make()
    require_kept_state(layer, lambda: layer(_tokens(subject)[:0]), "tokens")


def passes_a_gradient_to_every_parameter_and_the_input(subject: Subject) -> None:
    """Outputs have a gradient for each parameter and for the tokens that is not 0."""
    layer, x = subject.make(), _tokens(subject).requires_grad_()
    y = _run(layer, x)
    require(y.requires_grad, "gives outputs without a gradient")
    (y * torch.linspace(0.5, 1.5, y.shape[-1])).square().sum().backward()
    require_gradients(layer, [("the input", x)])


def gives_the_same_once_loaded(subject: Subject) -> None:
    """A second layer gives other outputs until it loads the state dict of the first."""
    require_loadable(subject.make().eval(), subject.make(1).eval(), _tokens(subject), _run)


def records_a_routing_of_every_token(subject: Subject) -> None:
    """`moebius.record` has a routing with one row for each token."""
    layer = subject.make()
    with record(layer) as log:
        layer(_tokens(subject))
    rows = [len(routing.weights) for routings in log.values() for routing in routings]
    require(_SEQUENCES * _TOKENS in rows, f"records routings of {rows} rows for {_SEQUENCES * _TOKENS} tokens")


def leaves_padding_out(subject: Subject) -> None:
    """With a mask, padding gets 0 and changes no other output, whatever stands there; in eval."""
    layer, x = subject.make().double().eval(), _tokens(subject, torch.float64)
    outputs = []
    for tokens in (poison(x, _MASK), torch.where(_MASK.unsqueeze(-1), x, 7.0)):
        with context(mask=_MASK):
            outputs.append(_run(layer, tokens))
        padding = outputs[-1][~_MASK]
        require_equal(padding, torch.zeros_like(padding), "gives padding an output that is not 0")
    require_close(outputs[0], outputs[1], "gives other outputs where other numbers stand in the padding")
    require_close(outputs[0][:1], _run(layer, x[:1]), "gives a sequence without padding other outputs beside a mask")


def _run(layer: nn.Module, x: Tensor) -> Tensor:
    """The layer's output for tokens; several outputs one behind the other on the last axis."""
    y = layer(x)
    outputs = list(y.values()) if isinstance(y, Mapping) else [y]
    for output in outputs:
        require(isinstance(output, Tensor), f"gives a {type(output).__name__}, needs one tensor")
    require(len(outputs) > 0, "gives a mapping without outputs")
    rule = f"gives outputs of shapes {[tuple(output.shape) for output in outputs]}, whose tokens differ"
    require(len({output.shape[:-1] for output in outputs}) == 1, rule)
    return torch.cat(outputs, -1)


def _tokens(subject: Subject, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (_SEQUENCES, _TOKENS, subject.sample.facts["features"])
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


CHECKS = (
    gives_one_output_for_each_token,
    treats_sequences_by_themselves,
    permuting_tokens_permutes_outputs,
    gives_the_same_twice_in_eval_and_leaves_its_input,
    keeps_its_state_where_there_are_no_tokens,
    passes_a_gradient_to_every_parameter_and_the_input,
    gives_the_same_once_loaded,
    records_a_routing_of_every_token,
    leaves_padding_out,
)
