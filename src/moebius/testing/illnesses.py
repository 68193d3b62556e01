"""The contract of illnesses: what is known of a gate → a symptom or nothing; needs the extra `lab`."""

import importlib
import inspect
import re
from collections.abc import Callable
from typing import Any

import torch

from moebius.testing._contract import require
from moebius.testing._run import run_checks
from moebius.testing._subject import Subject


def check_illness(illness: Callable[..., Any], **arguments: Any) -> None:
    """Hold a test of an illness to the contract of the room `illnesses`: every function of `CHECKS`.

    Arguments:
        illness: the function, decorated by `illness`.
        arguments: keywords for it.

    Raises:
        ContractError: the first rule that it breaks.

    Example:
        >>> from moebius.lab.illnesses import blind_gate
        >>> check_illness(blind_gate)

    Reference: ours.
    """
    run_checks(CHECKS, Subject("illnesses", illness, arguments))


def names_its_null(subject: Subject) -> None:
    """The docstring has a paragraph "Null: …": what a gate without the illness would show."""
    text = inspect.getdoc(subject.component) or ""
    require(re.search(r"^Null: ", text, re.MULTILINE) is not None, "names no null", 'a paragraph "Null: …"')


def says_nothing_of_what_it_cannot_know(subject: Subject) -> None:
    """It gives None for a gate that sends each row to an expert of its own, where nothing else is known."""
    # By name: the library does not import the lab.
    rows = importlib.import_module("moebius.lab.diagnostics._rows")
    examination = importlib.import_module("moebius.lab.illnesses._examination")
    weights = torch.eye(4)[torch.arange(400) % 4]
    symptom = subject.component(examination.Examination("gate", rows.RoutedRows(weights, k=1)), **subject.arguments)
    require(symptom is None, f"finds {symptom} in a gate of which only even, decided weights are known")


CHECKS = (names_its_null, says_nothing_of_what_it_cannot_know)
