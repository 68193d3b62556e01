"""About the study: date, data, hardware, versions, the command that ran it, the files beside the page, the recipe."""

from collections.abc import Mapping
from datetime import UTC, datetime

from moebius.lab.report.blocks import Block, Code, Details, Facts, Section, Text
from moebius.lab.report.command import DATA_DIR, run_command
from moebius.lab.report.headline import data_words
from moebius.lab.report.mixed_versions import describe_mixing
from moebius.lab.report.numbers import listing
from moebius.lab.report.source import Study
from moebius.lab.yaml_text import write_yaml

ORDER = 100


def section(study: Study) -> Section | None:
    """The description, the facts of the study, the list of files, and the resolved recipe."""
    tables = sorted(f"tables/{name}.csv" for name, frame in study.tables.items() if name != "results" and len(frame))
    blocks: list[Block] = [Text(str(study.recipe.get("description") or "")), Facts(_list_facts(study))]
    command = run_command(study.about)
    folder = f" ({DATA_DIR}: the folder of the data sets)" if DATA_DIR in command else ""
    blocks += [Text(f"The command that runs it again{folder}:"), Code(command)] if command else []
    text = "Beside this page: results.json and results.csv hold every figure of every run; "
    text += "the tables behind this page are in tables/; " if tables else ""
    blocks.append(Text(f"{text}every picture is in figures/ as SVG and PNG."))
    if tables:
        blocks.append(Details(f"The {len(tables)} tables", [Text(f"{listing(tables)}.")]))
    if study.recipe:
        text = write_yaml(dict(study.recipe)).rstrip()
        blocks.append(Details("The recipe as it ran, with presets and overrides resolved", [Code(text)]))
    return Section("about", "About this study", blocks)


def _list_facts(study: Study) -> list[tuple[str, str]]:
    stamp = study.about.get("finished") or study.about.get("date")
    when = datetime.fromtimestamp((study.folder / "results.json").stat().st_mtime, UTC)
    facts = [
        ("study", study.name),
        ("date", str(stamp) if stamp else when.strftime("%Y-%m-%d %H:%M UTC")),
        ("data", data_words(study)),
        ("fingerprint of the data", str((study.about.get("data") or {}).get("fingerprint") or "")),
        ("seeds", ", ".join(map(str, study.seeds))),
        ("hardware", _list_pairs(study.about.get("hardware"))),
        ("versions", _list_pairs(study.about.get("versions"))),
        ("mixed versions", describe_mixing([*study.runs, *study.stages]) or ""),
    ]
    return [(name, value) for name, value in facts if value]


def _list_pairs(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(
            f"{str(key).replace('_', ' ')} {part}" for key, part in value.items() if part not in (None, "")
        )
    return str(value) if value else ""
