"""What type checkers see of the rooms: an `__init__.pyi` for each, written from its files when the package is built.

A room imports a component when it is first asked for, which no checker follows; and a list kept by hand would be one
more place to edit for a new kind. `python hatch_build.py` writes the stubs into the source tree, as `make types` does.
"""

import ast
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = Path(__file__).parent / "src" / "moebius"
HEADER = "# Written from the files of this folder by hatch_build.py; not to be edited.\n"


class CustomBuildHook(BuildHookInterface):
    """Writes the stubs before files are collected."""

    def initialize(self, version: str, build_data: dict) -> None:
        """Write them, and have them taken along although version control ignores them."""
        write_stubs(Path(self.root) / "src" / "moebius")
        build_data["artifacts"].append("*.pyi")


def write_stubs(package: Path = PACKAGE) -> list[Path]:
    """Write the stub of every room; a file whose text stays the same is left alone."""
    paths = []
    for module in sorted(package.rglob("__init__.py")):
        text = stub(module)
        path = module.with_suffix(".pyi")
        if text is not None:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                path.write_text(text, encoding="utf-8")
            paths.append(path)
    return paths


def stub(module: Path) -> str | None:
    """The stub of a room's `__init__.py`; None for a package that is no room."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    if not any(isinstance(node, ast.Expr) and ast.unparse(node) == "open_room(__name__)" for node in tree.body):
        return None
    parts = module.parent.parts
    dotted = ".".join(parts[len(parts) - parts[::-1].index("moebius") - 1 :])
    lines = [HEADER]
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Assign | ast.AnnAssign):
            lines.append(ast.unparse(node) + "\n")
        elif isinstance(node, ast.FunctionDef):
            node.body = [ast.Expr(ast.Constant(...))]
            lines.append(ast.unparse(node) + "\n")
    for file in sorted(module.parent.glob("*.py")):
        if not file.name.startswith("_"):
            name = component_name(file)
            lines.append(f"from {dotted}.{file.stem} import {name} as {name}\n")
    return "".join(lines)


def component_name(file: Path) -> str:
    """The public name of a component's file: it equals the file's but for case and underscores."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        names = [node.name] if isinstance(node, ast.ClassDef | ast.FunctionDef) else []
        if isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        for name in names:
            if name.replace("_", "").lower() == file.stem.replace("_", "").lower():
                return name
    raise ValueError(f"{file}: defines no public name that equals the file's")


if __name__ == "__main__":
    for written in write_stubs():
        print(written.relative_to(PACKAGE.parent))
