"""Functions that a setting holds together with the value that describes them: schedules and augmentations."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator

from moebius.kit.registry import find
from moebius.lab.checks.components import check_amount, check_component
from moebius.lab.checks.strict import place_of
from moebius.lab.checks.wording import raise_problems
from moebius.schedules import Schedule, as_schedule

# What a user may write for a number that can follow a schedule.
AmountLike = float | int | Mapping[str, Any] | Schedule


@dataclass(frozen=True, repr=False)
class Described:
    """A function, and the value from which it was made: equal values make equal functions.

    Arguments:
        plain: the value as it was written: a number, a mapping with a kind, or the function itself.
        function: what is called.
    """

    plain: Any
    function: Callable[..., Any] = field(compare=False)

    def __call__(self, *arguments: Any) -> Any:
        """What the function returns."""
        return self.function(*arguments)

    def __repr__(self) -> str:
        return getattr(self.plain, "__name__", repr(self.plain))


def read_amount(value: Any, least: float | int | None = None) -> Described:
    """The schedule that a number, a mapping with a kind, or a function of the epoch stands for.

    Arguments:
        value: what was written.
        least: smallest allowed number; None for any.

    Raises:
        ValidationError: the value is nothing of these, or breaks a rule of its kind.

    Example:
        >>> schedule = read_amount({"kind": "linear", "start": 0.0, "end": 1.0, "epochs": 4})
        >>> schedule(1.0), schedule.plain["kind"]
        (0.25, 'linear')
    """
    if isinstance(value, Described):
        return value
    if callable(value):
        return Described(value, value)
    raise_problems(check_amount(value, (), least))
    return Described(value, as_schedule(value))


def _read_rate(value: Any) -> Described:
    return read_amount(value, least=0)


def _read_augmentation(value: Any) -> Described:
    if isinstance(value, Described):
        return value
    if callable(value):
        return Described(value, value)
    raise_problems(check_component("data.augmentation", value, (), construct=True))
    keywords = {name: item for name, item in value.items() if name != "kind"}
    return Described(value, find("data.augmentation", value["kind"])(**keywords))


def _write(described: Described) -> Any:
    return described.plain


# Not operator.attrgetter: pydantic refuses it where its signature is (*args, **kwargs), as in Python 3.12.3.
_written = PlainSerializer(_write)
Amount = Annotated[Described, PlainValidator(read_amount), _written, place_of("amount")]
Rate = Annotated[Described, PlainValidator(_read_rate), _written, place_of("rate")]
Augmentation = Annotated[Described, PlainValidator(_read_augmentation), _written, place_of("augmentation")]
