"""`explore`: a local page that shows what a model did with single rows."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moebius.kit.errors import ArgumentError
from moebius.lab.explorer.explore_model import explore_model
from moebius.lab.explorer.explore_run import explore_run
from moebius.lab.explorer.explorer import ROWS
from moebius.lab.training.fit_rows import Names
from moebius.tasks._choice import TaskLike

if TYPE_CHECKING:
    from moebius.lab.explorer.server import Server


def explore(
    model: Any,
    data: Any = None,
    *,
    task: TaskLike | None = None,
    classes: Sequence[str] | None = None,
    inputs: Names | None = None,
    target: Names | None = None,
    rows: int = ROWS,
    port: int = 0,
    browser: bool = True,
) -> "Server":
    """Serve a page on which single rows can be looked at: scores, route, what every expert says, regret.

    The page is on this machine alone (127.0.0.1), under an address with a random token, and loads nothing from
    elsewhere. The server runs in a thread until `close()`, or until the process ends; a script calls `wait()`.

    Arguments:
        model: a model with mixtures inside, the result of `mb.fit`, or a run's folder.
        data: rows to look at, in any form that `mb.fit` takes; of a `moebius.lab.data` set the test rows. None for a
            run's folder, whose test rows are read.
        task: of a model, classification unless given.
        classes: names of the classes, or of quantities or labels.
        inputs, target: names of columns, as for `mb.fit`.
        rows: how many rows are computed at once, drawn by a fixed seed where there are more.
        port: of the page; 0 for any that is free.
        browser: whether to open the page in the browser.

    Returns:
        The server: `url`, `open()`, `wait()`, `close()`, and `explorer`, whose `export(folder)` writes a page that
        needs no server.

    Raises:
        ArgumentError: model and data do not fit, or the port is in use.
        StudyError, DataError: the run or its data cannot be read.
        MissingExtraError: the extra `explorer` is not installed.

    Example:
        >>> import torch, moebius as mb
        >>> moe = mb.Mixture(mb.gates.Linear(4, 2), [mb.experts.Linear(4, 3), mb.experts.Linear(4, 3)])
        >>> with explore(moe, (torch.randn(20, 4), torch.randint(3, (20,))), browser=False) as server:
        ...     server.url.startswith("http://127.0.0.1:")
        True

    Reference: ours.
    """
    from moebius.lab.explorer.server import Server

    if data is not None:
        options: dict[str, Any] = {"task": task, "classes": classes, "inputs": inputs, "target": target}
        explorer = explore_model(model, data, rows=rows, **options)
    elif isinstance(model, str | Path):
        explorer = explore_run(Path(model), rows)
    else:
        raise ArgumentError("data", "needs rows to look at", None, "mb.explore(model, (x, y))")
    server = Server(explorer, port)
    if browser:
        server.open()
    return server
