"""Routers choose experts from scores: scores (T, E) → Routing."""

from moebius.kit.registry import open_room

open_room(__name__)
