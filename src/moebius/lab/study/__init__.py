"""A study: recipe → runs (variants × seeds) → results → report. The only room that knows all of the others."""

from moebius.lab.study.run import run

__all__ = ["run"]
