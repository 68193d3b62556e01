"""Routers choose experts from scores: scores (T, E) → Routing."""

from moebius.registry import open_room

open_room(__name__)
