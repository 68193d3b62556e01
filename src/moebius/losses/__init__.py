"""Gate losses: pure, unweighted scalars of a Routing; smaller is better."""

from moebius.kit.registry import open_room

open_room(__name__)
