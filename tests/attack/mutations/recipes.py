"""Recipes with other values, other keys and broken text."""

import copy
import json
import random
from pathlib import Path

from moebius.kit.registry import kinds
from moebius.lab.recipe.load import load_recipe
from moebius.lab.recipe.shipped import find_recipe, shipped_recipes
from moebius.lab.yaml_text import read_yaml
from mutations.trials import Entry
from mutations.values import swap_text, swap_value

BASE = """
name: small
data: {sets: [{kind: digits}], size: 8}
model: {gate: {kind: linear}, experts: {kind: linear, count: 2}, combine: {kind: log_mixture}}
variants: {linear: {}}
"""
VALUES = ["", "{}", "[]", "!!int x", "!!binary '*'", "*a", "&a [*a]", "<<", "{<<: 1}", "~", "-0", "0x", ".nan", "'\\0'"]
VALUES += ['"\\ud800"', "9" * 30, "[[[[[]]]]]", "{kind: }", "{kind: linear, count: -1}", "{kind: [1]}", "²", "1_"]
VALUES += ["2001-01-01", "!!timestamp x", "!!python/object:os.system x", "? a", "a: b: c", "%", "@", "`", "|", "- - -"]
SIGNS = "{}[]:,&*!?|>'\"%@`#\t²\n"


class Recipes(Entry):
    """Files of recipes: the text of a small one, or the values of one that moebius ships."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.path = folder / "small.yaml"
        texts = [BASE, *(find_recipe(name).read_text(encoding="utf-8") for name in shipped_recipes())]
        self.values = [read_yaml(text, "recipe") for text in texts]

    def mutate(self, draw: random.Random) -> str:
        """Change the text, or a value."""
        if draw.random() < 0.6:
            text = swap_text(BASE, draw, VALUES, SIGNS)
            change = text
        else:
            values = copy.deepcopy(draw.choice(self.values))
            # Other kinds of a room, with the keywords of the first, reach further than other values.
            change = swap_kind(values, draw) if draw.random() < 0.3 else swap_value(values, draw)
            text = json.dumps(values)  # which is YAML
        self.path.write_text(text, encoding="utf-8")
        return f"recipe {change!r}"

    def call(self) -> None:
        """Load it."""
        load_recipe(str(self.path))


def swap_kind(values: object, draw: random.Random) -> str:
    """Another kind of any room in the place of one."""
    holders: list[dict] = []

    def collect(value: object) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("kind"), str):
                holders.append(value)
            for part in value.values():
                collect(part)
        elif isinstance(value, list):
            for part in value:
                collect(part)

    collect(values)
    if not holders:
        return "no kind"
    holder, room = draw.choice(holders), draw.choice(["gates", "routers", "experts", "combine", "losses"])
    before, holder["kind"] = holder["kind"], draw.choice(kinds(room))
    return f"{holder['kind']} in the place of {before}"
