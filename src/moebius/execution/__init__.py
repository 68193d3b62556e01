"""Executions move rows to experts and collect their outputs: plain functions, not modules."""

from moebius.kit.registry import open_room

open_room(__name__)
