"""The command `moebius`, also as `python -m moebius`."""

import sys

from moebius.kit.errors import MissingExtraError
from moebius.kit.extras import lab


def main() -> None:
    """Run the command, or say what to install for it."""
    try:
        command = lab("cli", "main")
    except MissingExtraError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    command()


if __name__ == "__main__":
    main()
