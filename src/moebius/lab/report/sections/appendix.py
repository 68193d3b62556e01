"""The files beside the page, and the recipe to run the study again."""

from moebius.lab.report.blocks import Block, Code, Details, Section, Text
from moebius.lab.report.numbers import listing
from moebius.lab.report.source import Study
from moebius.lab.yaml_text import write_yaml

ORDER = 100


def section(study: Study) -> Section | None:
    """The list of files, and the resolved recipe."""
    tables = sorted(f"tables/{name}.csv" for name, frame in study.tables.items() if name != "results" and len(frame))
    text = "Beside this page: results.json and results.csv hold every figure of every run; " + (
        f"the tables behind this page are {listing(tables)}; " if tables else ""
    )
    text += "every picture is in figures/ as SVG and PNG."
    blocks: list[Block] = [Text(text)]
    if study.recipe:
        text = write_yaml(dict(study.recipe)).rstrip()
        blocks.append(Details("The recipe as it ran, with presets and overrides resolved", [Code(text)]))
    return Section("files", "Files and recipe", blocks)
