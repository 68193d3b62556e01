"""Random changes of whole batches of images that leave their classes alone, drawn for every row by itself."""

from moebius.kit.registry import open_room

open_room(__name__)
