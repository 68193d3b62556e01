"""The keys of a recipe's `report`."""

from pydantic import Field

from moebius.lab.checks.strict import Strict


class CurvesSpec(Strict):
    """One figure of accuracy by epoch, and its zoomed view.

    Arguments:
        title: of the figure.
        variants: names of the variants that it shows, at least one.
    """

    title: str
    variants: list[str] = Field(min_length=1)


class ExpertCountSpec(Strict):
    """A figure of accuracy against the number of experts.

    Arguments:
        variants: names of the variants that the line joins, at least one.
        marks: names of variants that are drawn as horizontal rules.
    """

    variants: list[str] = Field(min_length=1)
    marks: list[str] = Field(default=[])


class OneExpertSpec(Strict):
    """A section on what is lost and saved when exactly one expert runs; times are measured after the last run.

    Arguments:
        floor: name of the variant that any mixture has to beat.
        bound: name of the variant that runs all of its experts.
    """

    floor: str
    bound: str


class ReportSpec(Strict):
    """What the report draws.

    Arguments:
        curves: figures of accuracy by epoch; without any, one figure shows all variants.
        expert_count: a figure of accuracy against the number of experts; null for none.
        one_expert: a section on running exactly one expert; null for none.
    """

    curves: list[CurvesSpec] = Field(default=[])
    expert_count: ExpertCountSpec | None = None
    one_expert: OneExpertSpec | None = None
