"""The sections of the page that are drawn from results.json, one file each.

A file defines a number `ORDER` and a function `section(study) -> Section | None`, and is found by its name. The section
reads the tables of the study and returns blocks, or None where the study has nothing for it. Sections about a
diagnostic are in that diagnostic's file.
"""

import importlib
import pkgutil

from moebius.kit.errors import MoebiusError
from moebius.lab.report.blocks import Section
from moebius.lab.report.find_diagnostics import find_diagnostics
from moebius.lab.report.source import Study


def sections_of(study: Study) -> list[Section]:
    """The sections of a study, those of diagnostics among them, in the order of the page.

    Raises:
        MoebiusError: two sections have the same name.
    """
    file_names = [info.name for info in pkgutil.iter_modules(__path__)]
    modules = [importlib.import_module(f"{__name__}.{name}") for name in file_names]
    builders = [(module.ORDER, module.section) for module in modules]
    builders += [(kind.order, kind.hooks["section"]) for kind in find_diagnostics() if "section" in kind.hooks]
    sections: dict[str, Section] = {}
    for _, build_section in sorted(builders, key=lambda builder: builder[0]):
        section = build_section(study)
        if section is not None and section.name in sections:
            rule = f"the page has two sections called {section.name!r}, the second by {build_section.__module__}"
            raise MoebiusError(rule, f'Section("my-{section.name}", …)')
        if section is not None:
            sections[section.name] = section
    return list(sections.values())
