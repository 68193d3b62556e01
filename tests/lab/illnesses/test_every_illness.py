"""The contract of the room, for each illness that is known."""

import re

import pytest
import torch

from moebius.kit.registry import find, kinds
from moebius.lab.diagnostics._rows import RoutedRows
from moebius.lab.illnesses._examination import Examination
from moebius.lab.illnesses._find import find_illnesses, known_illnesses
from moebius.testing.illnesses import check_illness

ILLNESSES = [pytest.param(name, test, facts, id=facts.code) for name, test, facts in known_illnesses()]


@pytest.mark.parametrize(("name", "test", "facts"), ILLNESSES)
def test_says_what_it_is_tested_against(name, test, facts):
    text = test.__doc__ or ""
    assert re.search(r"^\s*Null: ", text, re.M), f"{name} names no null"
    assert "Reference:" in text
    assert re.fullmatch(r"MB\d{3}", facts.code)
    assert facts.effect_name


@pytest.mark.parametrize("kind", kinds("illnesses"))
def test_keeps_the_contract(kind):
    check_illness(find("illnesses", kind))


@pytest.mark.parametrize(("name", "test", "facts"), ILLNESSES)
def test_watched_illnesses_need_weights_alone(name, test, facts):
    if facts.watched:
        weights = torch.zeros(500, 3)
        weights[:, 0] = 1
        assert isinstance(find_illnesses(Examination("gate", RoutedRows(weights, k=1)), watched=True), list)


def test_codes_are_unique_and_remedies_exist():
    facts = [facts for _, _, facts in known_illnesses()]
    assert len({each.code for each in facts}) == len(facts)
    names = {name for name, _, _ in known_illnesses()}
    assert {kind for each in facts for kind in each.explains} <= names


def test_a_single_expert_and_no_rows_have_no_illness():
    assert find_illnesses(Examination("gate", RoutedRows(torch.ones(50, 1)))) == []
    assert find_illnesses(Examination("gate", RoutedRows(torch.ones(0, 3)))) == []


def test_kinds_are_those_of_the_files():
    assert {name.replace(" ", "_") for name, _, _ in known_illnesses()} == set(kinds("illnesses"))
    assert find("illnesses", "blind_gate").__name__ == "blind_gate"
