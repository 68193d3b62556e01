"""The command `moebius`, also as `python -m moebius`."""

import sys

from moebius.kit.errors import MoebiusError
from moebius.kit.extras import lab


def main() -> None:
    """Run the command, or say what to install for it."""
    try:
        command = lab("cli", "main")
    except MoebiusError as error:
        sys.exit(f"error: {error}")
    command()


if __name__ == "__main__":
    main()
