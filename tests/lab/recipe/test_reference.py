from pathlib import Path

import pytest
from pydantic import BaseModel

from moebius.kit.registry import kinds
from moebius.lab.checks.keywords import list_keywords, parse_arguments
from moebius.lab.checks.strict import Keywords, Strict
from moebius.lab.recipe import schema
from moebius.lab.recipe.reference import ROOMS, SECTIONS, recipe_reference
from moebius.lab.training import gate_losses, optimizer_choice, settings

PAGE = Path(__file__).parents[3] / "docs" / "recipe-keys.md"
MODELS = {
    model
    for module in (schema, settings, gate_losses, optimizer_choice)
    for model in vars(module).values()
    if isinstance(model, type) and issubclass(model, BaseModel) and model not in (Strict, Keywords)
}


def test_the_page_is_what_the_code_says():
    written = PAGE.read_text(encoding="utf-8")
    assert written == recipe_reference(), "moebius schema --markdown > docs/recipe-keys.md"
    assert max(map(len, written.splitlines())) <= 120


@pytest.mark.parametrize("model", sorted(MODELS, key=lambda model: model.__name__), ids=lambda model: model.__name__)
def test_every_key_of_the_schema_has_a_text_and_a_section(model):
    assert set(parse_arguments(model.__doc__)) == set(model.model_fields)
    assert model in [section for _, section in SECTIONS]


@pytest.mark.parametrize("room", [room for room, _, _ in ROOMS])
def test_every_keyword_of_a_kind_has_a_text(room):
    missing = [(kind, word.name) for kind in kinds(room) for word in list_keywords(room, kind) if not word.text]
    assert missing == []
