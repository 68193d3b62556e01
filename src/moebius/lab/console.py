"""The console that commands print on: no control character of a name, a path or a message reaches the terminal."""

from typing import Any

from rich.console import Console
from rich.text import Text

from moebius.kit.names import printable


class PrintableConsole(Console):
    """Rich's console, which shows control characters of texts as their escapes.

    Example:
        >>> PrintableConsole().print("a\\x1b[2Jb")
        a\\u001b[2Jb
    """

    def render_str(self, text: str, **options: Any) -> Text:
        """A text as it is printed, also in the cells of tables."""
        return super().render_str(printable(text), **options)
