"""Formats of numbers, the same on the page, in the captions of figures and in the terminal."""

from moebius.lab.statistics.clopper_pearson import clopper_pearson
from moebius.lab.statistics.difference import Difference
from moebius.lab.statistics.interval import Estimate

NONE = "–"
# Up to so many names stand in a sentence.
NAMED = 4


def rate(value: float | int | None) -> str:
    """A share of 1 with three decimals; values below .0005 in size keep one significant digit.

    Example:
        >>> rate(0.6334), rate(1.0), rate(3e-30), rate(0.0), rate(-0.02), rate(None)
        ('.633', '1.000', '3e-30', '0', '−.020', '–')
    """
    if value is None or value != value:
        return NONE
    if value == 0:
        return "0"
    if abs(value) < 0.0005:
        return f"{value:.0e}".replace("-", "−", 1) if value < 0 else f"{value:.0e}"
    text = f"{abs(value):.3f}"
    return ("−" if value < 0 else "") + text.removeprefix("0")


def signed(value: float | int) -> str:
    """A difference of two rates, with its sign.

    Example:
        >>> signed(0.0381), signed(-0.002)
        ('+.038', '−.002')
    """
    return ("+" if value > 0 else "") + rate(value)


def bracket(estimate: Estimate | Difference) -> str:
    """An interval of rates; an empty text where there is none, as for one seed.

    Example:
        >>> bracket(Estimate(0.633, 0.633, 0.63, 0.636, 5))
        '[.630, .636]'
    """
    return "" if estimate.low is None else f"[{rate(estimate.low)}, {rate(estimate.high)}]"


def with_interval(estimate: Estimate) -> str:
    """A mean with its interval.

    Example:
        >>> with_interval(Estimate(0.633, 0.633, None, None, 1))
        '.633'
    """
    return f"{rate(estimate.mean)} {bracket(estimate)}".rstrip()


def signed_with_interval(estimate: Estimate | Difference) -> str:
    """A mean difference with its interval.

    Example:
        >>> signed_with_interval(Estimate(0.038, 0.038, -0.002, 0.078, 5))
        '+.038 [−.002, +.078]'
    """
    return f"{signed(estimate.mean)} {signed_bracket(estimate)}".rstrip()


def signed_bracket(estimate: Estimate | Difference) -> str:
    """An interval of a difference, with signs; an empty text where there is none."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"[{signed(estimate.low)}, {signed(estimate.high)}]"


def p_text(p: float | None) -> str:
    """A p value with three decimals, never 0.

    Example:
        >>> p_text(0.04213), p_text(1e-9), p_text(1.0), p_text(None)
        ('.042', '<.001', '1.000', '–')
    """
    return NONE if p is None else "<.001" if p < 0.001 else rate(p)


def of_seeds(successes: int, seeds: int, noun: str = "") -> str:
    """A number of seeds, and the interval of their share, by Clopper and Pearson at 95 %.

    Example:
        >>> of_seeds(0, 5), of_seeds(5, 5, "seeds")
        ('0 of 5 (0 … 52 %)', '5 of 5 seeds (48 … 100 %)')
    """
    low, high = clopper_pearson(successes, seeds)
    return f"{successes} of {seeds}{' ' * bool(noun)}{noun} ({100 * low:.0f} … {100 * high:.0f} %)"


def count(value: float | int | None) -> str:
    """A whole number with commas between groups of three digits.

    Example:
        >>> count(1234567.0), count(None)
        ('1,234,567', '–')
    """
    return NONE if value is None or value != value else f"{value:,.0f}"


def duration(seconds: float | int | None) -> str:
    """Seconds as seconds, minutes or hours.

    Example:
        >>> duration(4.23), duration(75), duration(7260)
        ('4.2 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds is None or seconds != seconds:
        return NONE
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def capitalise(text: str) -> str:
    """The text with a capital at its beginning; letters after it stay.

    Example:
        >>> capitalise("mean R²")
        'Mean R²'
    """
    return text[:1].upper() + text[1:]


def listing(words: list[str]) -> str:
    """Words in a sentence: with commas, and `and` before the last.

    Example:
        >>> listing(["a"]), listing(["a", "b"]), listing(["a", "b", "c"])
        ('a', 'a and b', 'a, b and c')
    """
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def names_of(names: list[str], most: int = NAMED) -> str:
    """The names in a sentence; of more than `most` and one, the first and the number of the others.

    Example:
        >>> names_of(["a", "b", "c"], 1)
        'a and 2 others'
    """
    return listing(names) if len(names) <= most + 1 else f"{', '.join(names[:most])} and {len(names) - most} others"
