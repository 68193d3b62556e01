"""Routers choose experts by the gate's scores: scores (T, E) → Routing."""

from moebius.kit.registry import open_room

open_room(__name__)
