"""Data sources: sets of images with their classes, each of which becomes one domain of the data, or a table."""

from moebius.kit.registry import open_room

open_room(__name__)
