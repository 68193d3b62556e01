"""The keys of a recipe's `published`."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import Field

from moebius.lab.checks.problems import Problem
from moebius.lab.checks.strict import AtLeastOne, Strict

SPLITS = ("train_", "validation_", "test_")
Rate = Annotated[float, Field(ge=0)]


class PublishedVariantSpec(Strict):
    """What is published of a variant; the report shows it beside the study's figures.

    Arguments:
        scores: by split and measure, such as test_accuracy or train_loss, the published figure.
        activation: by data set, the activation rates of the experts on its test rows, at least two of them; their
            order is arbitrary, and the report matches the experts.
        ignored: number of experts that are reported as ignored; null where nothing is reported.
        note: what else is to be known of these figures.
    """

    scores: dict[str, float] = Field(default={})
    activation: dict[str, Annotated[list[Rate], Field(min_length=2)]] = Field(default={})
    ignored: AtLeastOne | None = None
    note: str = ""

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Iterable[Problem]:
        """Scores name a split, and all data sets have a rate for each expert."""
        scores, activation = values.get("scores"), values.get("activation")
        for name, score in scores.items() if isinstance(scores, Mapping) else ():
            if not str(name).startswith(SPLITS):
                rule = "needs a split before the measure"
                yield Problem(("scores", name), rule, score, f"test_{name}: {score}")
        rates = activation if isinstance(activation, Mapping) else {}
        counts = {name: len(each) for name, each in rates.items() if isinstance(each, list)}
        for name, count in counts.items():
            first = next(iter(counts))
            if count != counts[first]:
                rule = f"needs a rate for each of the {counts[first]} experts that {first} has"
                yield Problem(("activation", name), rule, rates[name])


class PublishedSpec(Strict):
    """Figures of a published study, which the report sets beside those of this one.

    Arguments:
        source: where they are published: a citation, or an address.
        note: what is published without figures, or that there are none.
        variants: by name, what is published of a variant.
    """

    source: str = Field(min_length=1)
    note: str = ""
    variants: dict[str, PublishedVariantSpec] = Field(default={})
