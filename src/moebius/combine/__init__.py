"""Combines merge the experts' outputs with the gate's weights."""

from moebius.kit.registry import open_room

open_room(__name__)
