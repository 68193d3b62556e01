"""The documents hold together: links and paths lead somewhere, commands parse, and the Python blocks run."""

import functools
import re
import shlex
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import typer

from moebius.kit.registry import ROOMS
from moebius.lab.cli import app
from moebius.lab.recipe.load import load_recipe
from moebius.lab.recipe.shipped import shipped_recipes

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])
EVERY_DOCUMENT = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
NEEDS_LAB = "# needs moebius[lab]\n"
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)


def blocks(path: Path, *languages: str) -> list[str]:
    """The fenced blocks of a document in these languages."""
    return [text for language, text in FENCE.findall(path.read_text(encoding="utf-8")) if language in languages]


def prose(path: Path) -> str:
    """A document without its fenced blocks."""
    return FENCE.sub("", path.read_text(encoding="utf-8"))


def shell_lines(path: Path) -> list[str]:
    """The lines of a document's shell blocks, continuation lines joined and comments removed."""
    text = "".join(blocks(path, "sh", "bash")).replace("\\\n", " ")
    return [line for line in (re.sub(r"(^|\s)#.*", "", line).strip() for line in text.splitlines()) if line]


def commands(path: Path) -> list[str]:
    """Every `moebius …` command of a document, in shell blocks and in code spans."""
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(path))]
    return [text for text in dict.fromkeys([*shell_lines(path), *spans]) if text.startswith("moebius ")]


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@EVERY_DOCUMENT
def test_links_lead_somewhere_and_nothing_is_left_open(path):
    text = path.read_text(encoding="utf-8")
    assert "@@" not in text
    for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", text):
        if target.startswith("http"):
            continue
        file = path.parent / target if target else path
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), f"{target}#{anchor}"


@EVERY_DOCUMENT
def test_paths_in_code_spans_exist(path):
    spans = re.findall(r"`((?:src|tests|docs|examples|benchmarks)/[\w./-]+)`", prose(path))
    missing = [span for span in spans if "NAME" not in span and not (ROOT / span).exists()]
    assert missing == []


@EVERY_DOCUMENT
def test_lines_are_at_most_120_characters(path):
    # A row of a table is one line, however long.
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    assert [number for number, line in lines if len(line) > 120 and not line.lstrip().startswith("|")] == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_no_document_is_a_copy_of_another():
    titles = [path.read_text(encoding="utf-8").splitlines()[0] for path in DOCUMENTS]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize(
    ("path", "command"),
    [(path, command) for path in DOCUMENTS for command in commands(path)],
    ids=lambda value: value.relative_to(ROOT).as_posix() if isinstance(value, Path) else value,
)
def test_a_command_parses(path, command):
    """Its subcommand, options and values exist; a shipped recipe takes its preset and its overrides."""
    _, name, *words = shlex.split(command.partition(" > ")[0])
    group = typer.main.get_command(app)
    subcommands = getattr(group, "commands", {})
    if name.startswith("-"):
        assert name in ("--help", "--version")
        return
    assert name in subcommands, f"no command is called {name!r}"
    if not words:
        # The command by its name, as in "`moebius predict` reads …".
        return
    parameters = subcommands[name].make_context(name, words).params
    if parameters.get("recipe") in shipped_recipes():
        swept = [f"sweep.keys.{text}" for text in parameters.get("sweep") or ()]
        check_recipe(parameters["recipe"], (*(parameters["overrides"] or ()), *swept), parameters["preset"])


@functools.cache
def check_recipe(name: str, overrides: tuple[str, ...], preset: str | None) -> None:
    """Load a shipped recipe: its preset and its overrides fit. Once, however many documents name it."""
    load_recipe(name, overrides, preset)


@EVERY_DOCUMENT
def test_shell_blocks_quote_what_a_shell_would_expand(path):
    """Zsh refuses an unquoted `[128]` that matches no file."""
    unquoted = [re.sub(r"'[^']*'|\"[^\"]*\"", "", line) for line in shell_lines(path)]
    assert [line for line in unquoted if re.search(r"[\[\]{}*?]", line)] == []


@EVERY_DOCUMENT
def test_scripts_and_make_targets_of_shell_blocks_exist(path):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for line in shell_lines(path):
        first, second = [*line.split(), ""][:2]
        if first == "python" and second.endswith(".py"):
            assert (ROOT / second).exists(), line
        if first == "make":
            assert second in targets, line


@pytest.mark.parametrize("room", ROOMS)
def test_the_entry_points_of_every_room_are_documented(room):
    assert f"`moebius.{room}`" in (ROOT / "docs/building.md").read_text(encoding="utf-8")


def packages_of_the_lab() -> list[str]:
    """Import names of what the extra `lab` installs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {re.split(r"[<>=~!]", line)[0].lower() for line in project["optional-dependencies"]["lab"]}
    # PyTorch itself brings these two.
    needed -= {"filelock", "jinja2"}
    installed = packages_distributions().items()
    names = [name for name, owners in installed if needed & {owner.lower().replace("_", "-") for owner in owners}]
    assert len(names) >= len(needed)
    return names


def run_blocks(code: list[str], folder: Path, without: list[str] | None = None) -> None:
    """Run blocks in a fresh interpreter, one after another, as somebody does who pastes them.

    Arguments:
        code: the blocks.
        folder: the working directory, for files that they write.
        without: import names of packages that are to be missing.
    """
    missing = f"import sys\nfor name in {without or []!r}: sys.modules[name] = None\n"
    script = folder / "blocks.py"
    script.write_text(missing + "\n".join(code), encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_the_readme_runs_from_top_to_bottom(tmp_path):
    python = blocks(ROOT / "README.md", "python")
    library = [block for block in python if not block.startswith(NEEDS_LAB)]
    assert len(library) >= 2
    # Who has only the library pastes from the top, and stops where the lab begins.
    assert python[: len(library)] == library
    assert len(python) > len(library)
    run_blocks(python, tmp_path)


def test_the_first_blocks_of_the_readme_need_no_lab_and_the_others_say_so(tmp_path):
    """All blocks without the lab: the first one that fails is one that names the extra."""
    python = blocks(ROOT / "README.md", "python")
    with pytest.raises(AssertionError, match=r"moebius\[lab\]"):
        run_blocks(python, tmp_path, without=packages_of_the_lab())


@pytest.mark.parametrize("document", ["building", "execution", "multi-task", "studies/one-active"])
def test_the_python_of_a_document_runs_without_the_lab(document, tmp_path):
    python = blocks(ROOT / f"docs/{document}.md", "python")
    library = [block for block in python if not block.startswith(NEEDS_LAB)]
    assert python[: len(library)] == library
    run_blocks(library, tmp_path, without=packages_of_the_lab())


def test_the_page_on_several_tasks_runs_to_the_table_of_the_lab(tmp_path):
    python = blocks(ROOT / "docs/multi-task.md", "python")
    assert python[-1].startswith(NEEDS_LAB)
    run_blocks(python, tmp_path)


def test_two_targets_are_trained_in_less_than_20_lines():
    first = blocks(ROOT / "docs/multi-task.md", "python")[0]
    model_and_loop = first[first.index("experts = ") :]
    assert len([line for line in model_and_loop.splitlines() if line]) < 20


@pytest.mark.parametrize(
    "document",
    [
        *("docs/measures.md", "docs/tasks.md"),
        # Each trains; what they show has quick tests in its room.
        *(
            pytest.param(f"docs/{name}.md", marks=pytest.mark.thorough)
            for name in ("doctor", "report", "sklearn", "tables")
        ),
    ],
)
def test_the_python_of_a_document_of_the_lab_runs(document, tmp_path):
    run_blocks(blocks(ROOT / document, "python"), tmp_path)


def test_the_page_on_training_runs_to_the_trackers(tmp_path):
    """Those run where they are installed: tests/lab/training/test_trackers.py."""
    python = [block for block in blocks(ROOT / "docs/training.md", "python") if block.startswith(NEEDS_LAB)]
    assert python
    run_blocks(python, tmp_path)


def test_the_page_on_predictions_explains_a_model(tmp_path):
    """Its further blocks need a run."""
    run_blocks(blocks(ROOT / "docs/predict.md", "python")[:1], tmp_path)


def test_the_conversion_of_the_page_on_other_tools_runs(tmp_path):
    """Its other blocks are lines for programs of others."""
    pytest.importorskip("transformers", reason="transformers is not installed")
    (example,) = (block for block in blocks(ROOT / "docs/interop.md", "python") if "mb.convert" in block)
    run_blocks([example], tmp_path)
    assert (tmp_path / "olmoe/model.safetensors").exists()


def test_the_recipe_of_the_page_on_tables_loads(tmp_path):
    whole, variant = blocks(ROOT / "docs/tables.md", "yaml")
    path = tmp_path / "tumours.yaml"
    path.write_text(whole, encoding="utf-8")
    assert load_recipe(str(path), preset="quick").training.epochs == 3
    path.write_text(re.sub(r"^variants:.*?^presets", f"{variant}presets", whole, flags=re.M | re.S), encoding="utf-8")
    assert list(load_recipe(str(path)).resolved_variants()) == ["gg-moe"]
