"""Recipes and overrides that are made to hang, to fill the memory or to end in a traceback: refused, with a reason."""

import resource
import subprocess
import sys
import time

import pytest

from moebius.kit.errors import MoebiusError, RecipeError
from moebius.lab.recipe.load import load_recipe

BASE = """
name: small
data: {sets: [{kind: digits}], size: 8}
model: {gate: {kind: linear}, experts: {kind: linear, count: 2}, combine: {kind: log_mixture}}
variants: {linear: {}}
"""


def lists_of_aliases(width=10, levels=9):
    lines = ["a0: &a0 [" + ", ".join(["x"] * width) + "]"]
    lines += [f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * width) + "]" for n in range(1, levels)]
    return "\n".join(lines)


def merged_aliases(width=10, levels=12):
    lines = ["m0: &m0 {x: 1}"]
    lines += [f"m{n}: &m{n} {{<<: [" + ", ".join([f"*m{n - 1}"] * width) + f"], y{n}: 1}}" for n in range(1, levels)]
    return "\n".join(lines)


TEXTS = {
    "aliases": (BASE + lists_of_aliases(), "aliases counted in full"),
    "merges": (BASE + merged_aliases(), "aliases counted in full"),
    "presets": (BASE + "presets:\n" + "".join(f"  p{n}: {{}}\n" for n in range(1000)), "presets: needs at most 100"),
    "length": (BASE + "title: " + "x" * 1_000_000, "needs at most 200,000 characters"),
    "flow": (BASE + "title: " + "[" * 2000 + "]" * 2000, "at most 64 levels"),
    "flow mappings": (BASE + "title: " + "{a: " * 2000 + "}" * 2000, "at most 64 levels"),
    "block": (BASE + "title:\n" + "".join(" " * (n + 1) + "a:\n" for n in range(300)), "at most 64 levels"),
    "count": (BASE.replace("count: 2", "count: 1" + "0" * 30), "at most 64 bits"),
    "many experts": (BASE.replace("count: 2", "count: 10000000"), "at most 4,096 experts"),
    "countless experts": (BASE.replace("count: 2", "count: 1" + "0" * 18), "at most 4,096 experts"),
    "digits": (BASE + "seeds: " + "9" * 4301, "no valid YAML"),
    "hexadecimal digits": (BASE + "seeds: 0x" + "9" * 20_000, "at most 64 bits"),
    "NUL": (BASE + 'title: "a\\0b"', "control characters"),
    "escape sequence": (BASE + 'title: "\\e[2J"', "control characters"),
    "key": (BASE + 'published: {"\\e[2J": 1}', "control characters"),
    **{tag: (BASE + f"title: !!{tag} foo", "no valid YAML") for tag in ("int", "float", "bool")},
    "binary digits": (BASE + "seeds: !!int 0b", "no valid YAML"),
    "no digits": (BASE + "seeds: !!int ''", "no valid YAML"),
    "set": (BASE + "title: !!set {a}", "needs a plain value"),
}
OVERRIDES = {
    "seeds=1000000000000": "seeds",
    "data.sets=[{kind: textures, rows_per_class: 1000000000000}]": "rows_per_class: needs at most 1,000,000",
    "data.sets=[{kind: textures, rows_per_class: 900000, size: 4096}]": "at most 100,000,000 pixels",
    "data.sets=[{kind: textures, size: 1000000000000}]": "size: needs at most 4,096",
    "data.sets=[{kind: scenes, scenes: 1000000000000}]": "scenes: needs at most 1,000,000",
    "data.sets=[{kind: regimes, rows: 1000000000000}]": "rows: needs at most 1,000,000",
    "data.sets=[{kind: regimes, regimes: 1000000000000}]": "regimes: needs at most 1,000",
    "sweep={keys: {training.epochs: [1, 2]}, method: random, trials: 1000000000000}": "trials",
    "sweep={keys: {training.epochs: [1, 2]}, most: 1000000000000}": "most",
    "sweep={keys: {training.epochs: {low: 1, high: 2000000, count: 1000000000000}}, most: 9}": "count",
    "training.²=1": "training.²: no such key",
    "data.sets.²=1": "the list data.sets has positions",
    f"data.sets.{'9' * 5000}=1": "the list data.sets has positions",
    "data.size=1000000000000": "data.size",
    'data.sets=[{kind: folder, path: "a\\0b"}]': "control characters",
    "model.router={kind: argmax, foo: 1}": "argmax has no such keyword",
    "seeds=!!int foo": "no valid YAML",
    "model.gate=" + "[" * 2000: "at most 64 levels",
    "a." * 3000 + "b=1": "a key of at most 64 parts",
    f"training.epochs=1{'0' * 30}": "at most 64 bits",
    "model.experts={kind: conv, filters: [4000000000000, 4000000000000]}": "more elements than torch can count",
    "title=\ud800": "no valid YAML",
}


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(BASE, encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def bounded():
    """At most ten seconds of this process, and a gigabyte more than it had."""
    begun, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - begun < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20


@pytest.mark.parametrize("name", TEXTS)
def test_a_hostile_recipe_is_refused(name, recipe):
    text, reason = TEXTS[name]
    recipe.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(recipe))
    assert reason in caught.value.message
    assert len(caught.value.message) < 1000


@pytest.mark.parametrize("override", OVERRIDES, ids=lambda text: text[-40:].encode("unicode_escape").decode())
def test_a_hostile_override_is_refused(override, recipe):
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(recipe), [override])
    assert OVERRIDES[override] in caught.value.message
    assert len(caught.value.message) < 8000


@pytest.mark.parametrize("name", ["a\0b", "a\0b.yaml", "/dev/zero", "x" * 300, "x/" * 3000])
def test_a_hostile_name_of_a_recipe_is_no_recipe(name):
    with pytest.raises(MoebiusError):
        load_recipe(name)


def test_the_command_ends_with_2(recipe):
    recipe.write_text(TEXTS["aliases"][0], encoding="utf-8")
    command = [sys.executable, "-m", "moebius", "run", str(recipe), "--plan-only"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=recipe.parent)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_recipe_may_use_aliases(recipe):
    recipe.write_text(
        BASE.replace("{kind: linear}", "&linear {kind: linear}", 1) + "description: &text d\ntitle: *text"
    )
    assert load_recipe(str(recipe)).file.title == "d"
