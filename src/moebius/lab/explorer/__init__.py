"""The explorer: a local page that shows what a mixture did with single rows.

`explore(model, data)` serves it; an `Explorer` computes and draws its views, `Server` (moebius.lab.explorer.server,
which needs the extra `explorer`) puts them behind an address of this machine.
"""

from moebius.lab.explorer.explore import explore as explore
from moebius.lab.explorer.explore_model import explore_model as explore_model
from moebius.lab.explorer.explore_run import explore_run as explore_run
from moebius.lab.explorer.explore_run import explore_saved as explore_saved
from moebius.lab.explorer.explorer import Explorer as Explorer
