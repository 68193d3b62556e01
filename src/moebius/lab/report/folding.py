"""Sections that say the same of many variants: the first ones are seen, the others are behind a line to open."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from moebius.lab.report.blocks import Block, Details, Heading, Section
from moebius.lab.report.numbers import listing

# So many variants of a section are seen; up to MOST of them are not folded.
SEEN, MOST = 1, 4
# Characters of names in a line to open.
LONGEST = 150


def fold_section(section: Section, variants: Sequence[str]) -> Section:
    """The section with its parts about variants in the order of `variants`, those after the first ones folded.

    A part begins with a heading that a variant's name begins. Sections with few such parts, or with headings that no
    variant's name begins between them, stay as they are.

    Arguments:
        section: of the page.
        variants: all names, the first ones those to see.
    """
    section = replace(section, blocks=_fold_details(section.blocks))
    places = [place for place, block in enumerate(section.blocks) if isinstance(block, Heading)]
    owners = [_owner(block.text, variants) for block in section.blocks if isinstance(block, Heading)]
    # What follows the last variant's part, such as a summary, has a heading of its own.
    count = next((place for place, owner in enumerate(owners) if owner is None), len(owners))
    if count <= MOST or any(owner is not None for owner in owners[count:]):
        return section
    ends = [*places[1:], len(section.blocks)]
    parts = [(owners[place], section.blocks[places[place] : ends[place]]) for place in range(count)]
    ranks = {name: rank for rank, name in enumerate(variants)}
    parts.sort(key=lambda part: ranks[str(part[0])])
    names = list(dict.fromkeys(str(owner) for owner, _ in parts[SEEN:]))
    folded: list[Block] = [block for _, blocks in parts[SEEN:] for block in blocks]
    seen = [block for _, blocks in parts[:SEEN] for block in blocks]
    rest = section.blocks[ends[count - 1] :]
    summary = f"{len(parts) - SEEN} more: {listing(names)}"
    return replace(section, blocks=[*section.blocks[: places[0]], *seen, Details(summary, folded), *rest])


def _fold_details(blocks: Sequence[Block]) -> list[Block]:
    """The blocks with runs of many lines to open behind a single one."""
    folded: list[Block] = []
    for is_details, run in groupby(blocks, key=lambda block: isinstance(block, Details)):
        run = list(run)
        folded += [Details(_common_summary(run), run)] if is_details and len(run) > MOST else run
    return folded


def _common_summary(run: Sequence[Block]) -> str:
    """The number of the lines to open, and what they have in common after the names of variants."""
    ends = {block.summary.rpartition(": ")[2] for block in run if isinstance(block, Details)}
    if len(ends) == 1:
        return f"{len(run)} variants: {ends.pop()}"
    names = listing([block.summary for block in run if isinstance(block, Details)])
    return f"{len(run)} more: {names}" if len(names) <= LONGEST else f"{len(run)} more"


def _owner(heading: str, variants: Sequence[str]) -> str | None:
    """The variant that a heading is about: the longest name that it begins with."""
    names = [name for name in variants if heading == name or heading.startswith(f"{name}, ")]
    return max(names, key=len, default=None)
