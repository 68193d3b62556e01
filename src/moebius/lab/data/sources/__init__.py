"""Data sources: sets of images with their classes; each set becomes one domain of the data."""

from moebius.kit.registry import open_room

open_room(__name__)
