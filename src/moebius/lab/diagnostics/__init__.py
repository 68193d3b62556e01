"""Diagnostics of gates: gate weights and labels in, tidy tables and chapters of the report out.

Each file defines a measure of the file's name. It takes numpy arrays: `weights` of shape (T, E), whole-number labels or
groups of shape (T,), and the names of the groups. It returns a pandas frame with one observation per line and the index
0, 1, 2 …; experts are numbered from 0. The weights of a Routing are `routing.weights.float().numpy(force=True)`.

A file may also define `table`, `split_table`, `section` and `ORDER` for the report:
`moebius.lab.report.find_diagnostics` says what they are.
"""

from moebius.kit.registry import open_room

open_room(__name__)
