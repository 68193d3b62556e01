"""A study: recipe → runs (variants × seeds) → results → report. It uses all other rooms of the lab."""

from moebius.lab.study.run import run

__all__ = ["run"]
