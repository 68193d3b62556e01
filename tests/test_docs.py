"""The documents hold together: links lead somewhere, nothing is left to be filled in, the README's Python runs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere_and_nothing_is_left_open(path):
    text = path.read_text(encoding="utf-8")
    assert "@@" not in text
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        assert target.startswith("http") or (path.parent / target).exists(), target


def test_no_document_is_a_copy_of_another():
    titles = [path.read_text(encoding="utf-8").splitlines()[0] for path in DOCUMENTS]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize(("document", "least"), [("README.md", 3), ("docs/execution.md", 1)])
def test_the_python_of_a_document_runs_from_top_to_bottom(document, least):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= least
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
