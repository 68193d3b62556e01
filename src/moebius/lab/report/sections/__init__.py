"""The sections of the page, one file each: a number `ORDER` and a function `section(study) -> Section | None`.

A section is found by its file, so that adding one touches nothing else. It reads the study's tables and gives blocks;
None where the study has nothing for it.
"""

import importlib
import pkgutil

from moebius.lab.report.blocks import Section
from moebius.lab.report.source import Study


def sections_of(study: Study) -> list[Section]:
    """All sections that have something to say about a study, in reading order."""
    names = [info.name for info in pkgutil.iter_modules(__path__) if not info.name.startswith("_")]
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    made = [module.section(study) for module in sorted(modules, key=lambda module: module.ORDER)]
    return [section for section in made if section is not None]
