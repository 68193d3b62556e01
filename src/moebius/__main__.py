"""`python -m moebius` is the command `moebius`."""

from moebius.cli import main

main()
