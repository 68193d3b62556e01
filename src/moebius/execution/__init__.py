"""Executions move rows to experts and collect their outputs; they are plain objects without state, not modules."""

from moebius.kit.registry import open_room

open_room(__name__)
