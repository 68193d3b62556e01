"""The tables of all illnesses and remedies, written from their code: a part of docs/doctor.md."""

import inspect

from moebius.kit.registry import catalogue
from moebius.lab.illnesses._find import known_illnesses


def illness_table() -> str:
    """A line of Markdown for each illness: code, kind, what is seen, the null, the tested figure, the remedies.

    Example:
        >>> illness_table().splitlines()[2].startswith("| MB001 | collapsed gate |")
        True
    """
    lines = ["| code | kind | what is seen | null | tested figure | tried |", "| --- | --- | --- | --- | --- | --- |"]
    for kind, test, facts in sorted(known_illnesses(), key=lambda entry: entry[2].code):
        paragraphs = (inspect.getdoc(test) or "").split("\n\n")
        null = next((each.removeprefix("Null:").strip() for each in paragraphs if each.startswith("Null:")), "")
        remedies = ", ".join(f"`{remedy}`" for remedy in facts.remedies) or "–"
        cells = [facts.code, kind, paragraphs[0], null.split(": ")[0], facts.effect_name, remedies]
        lines.append("| " + " | ".join(" ".join(cell.split()).rstrip(".") for cell in cells) + " |")
    return "\n".join(lines)


def remedy_table() -> str:
    """A line of Markdown for each remedy: its kind, and what it does."""
    lines = ["| remedy | what is done |", "| --- | --- |"]
    lines += [f"| `{kind}` | {summary.rstrip('.')} |" for kind, summary, _ in catalogue("remedies")]
    return "\n".join(lines)
