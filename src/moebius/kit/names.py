"""Names and texts from elsewhere: which names are refused, and how a text with control characters is shown."""

import re
from collections.abc import Iterable, Sequence

from moebius.kit.errors import DataError

# Control characters, separators of lines, marks that turn the direction of text, halves of characters, no characters.
_CONTROL = "\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff"
UNPRINTABLE = re.compile(f"[{_CONTROL}]")
_UNSHOWN = re.compile(f"(?![\n\t])[{_CONTROL}]")


def find_fault(name: str) -> str | None:
    """What is wrong with a name, as a clause; None where nothing is.

    Example:
        >>> find_fault("a\\x07b"), find_fault(" "), find_fault("naïve 漢")
        ("holds the control character '\\\\x07'", 'is empty', None)
    """
    if not name.strip():
        return "is empty"
    match = UNPRINTABLE.search(name)
    if match is None:
        return None
    is_half = "\ud800" <= match[0] <= "\udfff"
    return f"holds {'half of a character' if is_half else 'the control character'} {match[0]!r}"


def check_names(noun: str, names: Iterable[str], where: str = "", allows_empty: bool = False) -> None:
    """Refuse names that figures, pages and terminals cannot show.

    Arguments:
        noun: what the names are of, such as "class".
        names: texts.
        where: file or set that holds them; empty where nothing is known of it.
        allows_empty: whether a name may have no character.

    Raises:
        DataError: a name is empty, or holds a control character or half of a character.

    Example:
        >>> check_names("class", ["cat", "a\\x07b"], "pets")
        Traceback (most recent call last):
        moebius.kit.errors.DataError: pets: the class 'a\\x07b' holds the control character '\\x07'
          fix: give this class a name of printable characters where the data are
    """
    for name in names:
        fault = None if allows_empty and not name else find_fault(name)
        if fault is not None:
            place = f"{printable(where)}: " if where else ""
            fix = f"give this {noun} a name of printable characters where the data are"
            raise DataError(f"{place}the {noun} {name!r} {fault}", fix)


def printable(text: str) -> str:
    """The text as a terminal may get it: a control character becomes its escape, as JSON writes it; lines stay.

    Example:
        >>> printable("a\\x1b[2Jb\\n")
        'a\\\\u001b[2Jb\\n'
    """
    return _UNSHOWN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def shorten(text: str, length: int = 60) -> str:
    """The text, of which the middle is left out where it is longer.

    Example:
        >>> shorten("abcdefghij", 5)
        'ab…ij'
    """
    if len(text) <= length:
        return text
    end = (length - 1) // 2
    return f"{text[: length - 1 - end]}…{text[len(text) - end :]}"


def safe_cells(values: Sequence[object]) -> list[object]:
    """Cells of a CSV file; a text that a spreadsheet would run as a formula gets an apostrophe before it.

    Formulas begin with =, +, @, a tab or a carriage return; or with − where no number follows.

    Example:
        >>> safe_cells(["=1+1", "-x", "-1.5", "cat", -2])
        ["'=1+1", "'-x", '-1.5', 'cat', -2]
    """
    return [f"'{value}" if isinstance(value, str) and _is_formula(value) else value for value in values]


def _is_formula(text: str) -> bool:
    if not text.startswith("-"):
        return text.startswith(("=", "+", "@", "\t", "\r"))
    try:
        float(text)
    except ValueError:
        return True
    return False
