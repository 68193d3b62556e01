"""`Comparison`: models beside each other, as text, as a frame and as plain values."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from moebius.lab.comparison.models import Model
from moebius.lab.comparison.pair import Pair
from moebius.lab.report.frames import Frame, make_frame

# Of the JSON of a comparison; docs/results-schema.md describes it.
SCHEMA = 1


@dataclass(frozen=True, repr=False)
class Comparison:
    """What `compare` gives.

    Arguments:
        models: the reference first.
        pairs: each with the reference, or all.
        level: of the intervals.
        notes: about the data.
    """

    models: tuple[Model, ...]
    pairs: tuple[Pair, ...]
    level: float = 0.95
    notes: Sequence[str] = ()

    @property
    def score_name(self) -> str:
        """Of the task."""
        return self.models[0].score_name

    @cached_property
    def multiply_adds(self) -> dict[str, float | None]:
        """Name of each model → multiply-adds of a row."""
        return {model.name: model.multiply_adds() for model in self.models}

    def frame(self) -> Frame:
        """A line for each pair: the difference over seeds (over rows with one seed), and both p values of it."""
        lines = []
        for pair in self.pairs:
            line = {"model": pair.name, "reference": pair.reference, **asdict(pair.primary), "p_holm": pair.primary_p}
            line |= {"over": "rows" if pair.over_seeds is None else "seeds", "verdict": pair.verdict}
            line |= {f"rows_{name}": value for name, value in asdict(pair.over_rows).items()}
            lines.append({**line, "rows_p_holm": pair.rows_p_holm, "agreement": pair.agreement})
        return make_frame(lines)

    def model_frame(self) -> Frame:
        """A line for each model: its score over seeds and what it costs."""
        return make_frame([self._describe(model) for model in self.models])

    def group_frame(self) -> Frame:
        """A line for each pair and each class or domain: the difference over its rows."""
        return make_frame(
            [
                {"model": pair.name, "reference": pair.reference, "by": group.kind, "group": group.name}
                | asdict(group.difference)
                | {"p_holm": group.p_holm}
                for pair in self.pairs
                for group in pair.groups
            ]
        )

    def _describe(self, model: Model) -> dict[str, Any]:
        score = model.score
        return {
            "model": model.name,
            "folder": str(model.study / model.variant),
            "seeds": [*model.runs],
            "score": {"mean": score.mean, "low": score.low, "high": score.high, "count": score.count},
            "parameters": model.parameters,
            "multiply_adds": self.multiply_adds[model.name],
            "experts_run": model.experts_run,
            "seconds": model.seconds,
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them; see docs/results-schema.md."""
        from moebius.lab.comparison.wording import verdict_text

        return {
            "schema": SCHEMA,
            "score": self.score_name,
            "level": self.level,
            "models": [self._describe(model) for model in self.models],
            "pairs": [
                {**asdict(pair), "seeds": list(pair.seeds), "verdict": pair.verdict, "words": verdict_text(pair)}
                for pair in self.pairs
            ],
            "notes": list(self.notes),
        }

    def text(self, width: int = 80) -> str:
        """Lines for a terminal.

        Arguments:
            width: most characters of a line.
        """
        from moebius.lab.comparison.wording import comparison_text

        return comparison_text(self, width)

    def page(self, path: Path | str) -> Path:
        """Write one self-contained HTML page: the verdicts first, then the figures behind them.

        Arguments:
            path: of the page; a folder, which gets `comparison.html`, unless it ends in .html.

        Returns:
            The path of the page.
        """
        from moebius.lab.comparison.page import write_page

        return write_page(self, Path(path))

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        from moebius.lab.comparison.wording import comparison_html

        return comparison_html(self)
