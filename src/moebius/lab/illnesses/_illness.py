"""What a test of an illness returns, and the decorator that makes one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from moebius.lab.illnesses._examination import Examination

Test = TypeVar("Test", bound=Callable[[Examination], "Symptom | None"])


@dataclass(frozen=True)
class Symptom:
    """What a test has seen.

    Arguments:
        evidence: what shows, as a sentence with its figures.
        effect: the figure that was tested.
        low, high: its interval.
        null: the figure that a gate without the illness would have.
        null_model: what that gate is: "a balanced random router".
        remedy: what to try, as a sentence.
        experts: numbers of the experts that it is about.
    """

    evidence: str
    effect: float
    low: float
    high: float
    null: float
    null_model: str
    remedy: str
    experts: tuple[int, ...] = ()


@dataclass(frozen=True, repr=False)
class Finding(Symptom):
    """An illness that a gate has.

    Arguments:
        code: of the illness, such as "MB001".
        kind: its name, such as "collapsed gate".
        gate: name of the gate.
        effect_name: what the tested figure is.
        remedies: kinds of remedies that can be tried on held-out rows, the likeliest first.
    """

    code: str = ""
    kind: str = ""
    gate: str = "gate"
    effect_name: str = ""
    remedies: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"{self.code} {self.kind} at {self.gate}: {self.evidence}"

    def figures(self) -> str:
        """The tested figure with its interval and its null, in words.

        Example:
            >>> Finding("", 0.5, 0.4, 0.6, 0.0, "a permuted gate", "", effect_name="regret").figures()
            'regret 0.5 [0.4, 0.6]; a permuted gate has 0'
        """
        interval = f"[{_plain(self.low)}, {_plain(self.high)}]"
        return f"{self.effect_name} {_plain(self.effect)} {interval}; {self.null_model} has {_plain(self.null)}"

    def to_dict(self) -> Mapping[str, Any]:
        """All fields, as they go into JSON."""
        return {**vars(self), "experts": list(self.experts), "remedies": list(self.remedies)}


@dataclass(frozen=True)
class Illness:
    """What the tests of an illness have in common, as `illness` declares it.

    Arguments:
        code, effect_name, remedies: as in `Finding`.
        explains: kinds of illnesses that it is the reason of, so that they are not reported beside it.
        watched: whether a training looks for it after every epoch: it needs no more than weights and groups.
    """

    code: str
    effect_name: str
    remedies: tuple[str, ...] = ()
    explains: tuple[str, ...] = ()
    watched: bool = False


def illness(
    code: str,
    effect_name: str,
    remedies: tuple[str, ...] = (),
    explains: tuple[str, ...] = (),
    watched: bool = False,
) -> Callable[[Test], Test]:
    """Decorate a function Examination → Symptom or None: it is a test of the illness of its name.

    Arguments:
        code, effect_name, remedies, explains, watched: as in `Illness`.

    Example:
        >>> import moebius as mb
        >>> @illness("XX001", "largest weight")
        ... def decided_gate(gate):
        ...     top = float(gate.rows.weights.max())
        ...     return Symptom("it decides", top, top, top, 0.5, "an even gate", "do nothing") if top > 0.9 else None

    Reference: ours.
    """

    def decorate(test: Test) -> Test:
        test.illness = Illness(code, effect_name, remedies, explains, watched)  # type: ignore[attr-defined]
        return test

    return decorate


def _plain(value: float) -> str:
    return f"{value:.3g}"
