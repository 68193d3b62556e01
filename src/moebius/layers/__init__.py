"""Ready-made layers: what mixes rows or reads the experts, and so is no router under a gate."""

from moebius.kit.registry import open_room

open_room(__name__)
