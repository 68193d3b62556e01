"""The command `moebius`: parse, call, print. What takes long to import is imported inside the commands.

Importing this package adds every command to `app`, in the order of `moebius --help`.
"""

import sys

from moebius.lab.cli import run, job, recipes, results, compare, compose, plan, diagnose, predict, serve, bench  # isort: skip
from moebius.lab.cli._app import app as app

# Importing the modules has added their commands.
_ = (bench, compare, compose, diagnose, job, plan, predict, recipes, results, run, serve)


def main() -> None:
    """Run the command `moebius` with this process's arguments."""
    try:
        app()
    except KeyboardInterrupt:
        # Ctrl-C before a command had begun.
        sys.exit(130)
