"""Augmentations: random changes of images that keep their classes, drawn separately for every row of a batch."""

from moebius.kit.registry import open_room

open_room(__name__)
