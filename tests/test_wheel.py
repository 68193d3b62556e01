"""The wheel, installed bare: the library works with its few dependencies alone, and the lab says what it wants."""

import os
import re
import shutil
import subprocess
import sys
import venv
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
SOURCES = ("src", "pyproject.toml", "hatch_build.py", "README.md", "LICENSE")
LAB = "# needs moebius[lab]"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy of the sources without stubs."""
    folder = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyi"))
        else:
            shutil.copy(source, folder / name)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "built"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (path,) = (folder / "built").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def bare(wheel, tmp_path_factory) -> Path:
    """The Python of an environment with the wheel, what it depends on without extras, and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder / "env", symlinks=True)
    (site,) = (folder / "env").glob("lib/python*/site-packages")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True)
    for part in closure("moebius"):
        for name in {file.parts[0] for file in part.files or () if file.parts[0] not in ("..", "__pycache__")}:
            if not (site / name).exists():
                (site / name).symlink_to(Path(str(part.locate_file(name))))
    return folder / "env" / "bin" / "python"


def closure(name: str) -> list[Distribution]:
    """What a distribution depends on without its extras, directly or not; itself apart."""
    found: dict[str, Distribution] = {}
    waiting = [name]
    while waiting:
        for text in distribution(waiting.pop()).requires or ():
            requirement = Requirement(text)
            needed = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if needed and requirement.name.lower() not in found:
                found[requirement.name.lower()] = distribution(requirement.name)
                waiting.append(requirement.name)
    return list(found.values())


def run(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([str(python), *arguments], capture_output=True, text=True, env=environment)


def test_the_library_depends_on_five_packages_at_most():
    requirements = [Requirement(text) for text in distribution("moebius").requires or ()]
    names = {part.name for part in requirements if part.marker is None or "extra" not in str(part.marker)}
    assert names == {"torch", "numpy", "jaxtyping", "safetensors"}


def test_the_environment_is_bare(bare):
    for name in ("pydantic", "pandas", "typer", "pytest", "sklearn"):
        assert run(bare, "-c", f"import {name}").returncode == 1
    assert "site-packages" in run(bare, "-c", "import moebius; print(moebius.__file__)").stdout


def test_the_readme_s_library_examples_run(bare, tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    library = [block for block in blocks if not block.startswith(LAB)]
    assert len(library) >= 2
    script = tmp_path / "readme.py"
    script.write_text("\n".join(library), encoding="utf-8")
    result = run(bare, str(script))
    assert result.returncode == 0, result.stderr


def test_every_public_name_of_the_library_loads(bare):
    code = """
        import moebius as mb
        from moebius.kit.errors import MissingExtraError
        from moebius.kit.registry import ROOMS, find, kinds
        missing = []
        for name in mb.__all__:
            try:
                getattr(mb, name)
            except MissingExtraError:
                missing.append(name)
        assert missing == ["compose", "diagnose", "explore", "fit", "lab", "report"], missing
        for room, package in ROOMS.items():
            if not package.startswith("moebius.lab."):
                assert all(find(room, kind) for kind in kinds(room))
    """
    result = run(bare, "-c", re.sub(r"(?m)^ {8}", "", code))
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("arguments", [("-m", "moebius", "run", "quickstart"), ("-c", "import moebius; moebius.fit")])
def test_without_the_lab_there_is_the_line_to_paste(bare, arguments):
    result = run(bare, *arguments)
    assert result.returncode in (1, 2)
    assert "fix: pip install 'moebius[lab]'" in result.stderr
    if arguments[0] == "-m":
        assert result.returncode == 2
        assert "Traceback" not in result.stderr


def test_types_come_along(bare):
    folder = Path(run(bare, "-c", "import moebius; print(moebius.__path__[0])").stdout.strip())
    assert (folder / "py.typed").is_file()
    assert (folder / "gates" / "__init__.pyi").is_file()
