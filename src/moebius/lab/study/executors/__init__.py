"""Where the jobs of a study are done: on this machine, or by a scheduler on many."""

from moebius.kit.registry import open_room

open_room(__name__)
