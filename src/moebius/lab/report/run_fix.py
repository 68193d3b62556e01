"""What helps where a file of a run is damaged."""

from pathlib import Path

from moebius.kit.commands import move_aside


def rewrite_fix(path: Path) -> str:
    """The commands after which the study's next call has the run write the file anew; nothing is lost."""
    moves = move_aside(path, path.with_name("result.json"))
    return f"{moves}    # then run the study again: the run writes both anew, from its checkpoint"
