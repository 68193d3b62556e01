"""The contract of families of other libraries' blocks: what they recognise, and that they read without a trace."""

from collections.abc import Callable
from typing import Any

from torch import nn

from moebius.gates.linear import Linear as LinearGate
from moebius.integrations._family import Family
from moebius.layers.mixture import Mixture
from moebius.testing._contract import require
from moebius.testing._run import run_checks
from moebius.testing._subject import Subject


def check_integration(family: Callable[..., Any], **arguments: Any) -> None:
    """Hold a family to the contract of the room `integrations`: every function of `CHECKS`.

    Arguments:
        family: the class.
        arguments: for the constructor.

    Raises:
        ContractError: the first rule that the family breaks.

    Example:
        >>> import moebius as mb
        >>> check_integration(mb.integrations.Llama4)

    Reference: ours.
    """
    run_checks(CHECKS, Subject("integrations", family, arguments))


def is_a_family(subject: Subject) -> None:
    """It is made without arguments, unless it is a description, and is a `Family`."""
    family = subject.make()
    require(isinstance(family, Family), f"makes a {type(family).__name__}", "class Mine(Family)")


def recognises_no_other_modules(subject: Subject) -> None:
    """Modules without a mixture, and mixtures of ours, are not blocks of the family."""
    family = subject.make()
    experts = [nn.Linear(4, 4), nn.Linear(4, 4)]
    others = [nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4)), nn.ModuleDict({"gate": nn.Linear(4, 2)})]
    for module in (*others, nn.ModuleDict({"gate": nn.Linear(4, 2), "experts": nn.ModuleList(experts)})):
        require(not family.recognises(module), f"recognises {module}, whose weights it cannot read")
    require(not family.recognises(Mixture(LinearGate(4, 2), experts)), "recognises a mixture of ours")


CHECKS = (is_a_family, recognises_no_other_modules)
