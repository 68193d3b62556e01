"""Experts: the networks that a mixture combines. Any nn.Module can be one; these are ready-made."""

from moebius.kit.registry import open_room

open_room(__name__)
