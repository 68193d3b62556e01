"""Formats of numbers, the same on the page, in the captions of figures and in the terminal."""

from moebius.lab.statistics.interval import Estimate

NONE = "–"


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


def bracket(estimate: Estimate) -> str:
    """An interval of rates; an empty text for the estimate of one seed, which has no interval.

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


def signed_with_interval(estimate: Estimate) -> str:
    """A mean difference with its interval.

    Example:
        >>> signed_with_interval(Estimate(0.038, 0.038, -0.002, 0.078, 5))
        '+.038 [−.002, +.078]'
    """
    if estimate.low is None or estimate.high is None:
        return signed(estimate.mean)
    return f"{signed(estimate.mean)} [{signed(estimate.low)}, {signed(estimate.high)}]"


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
