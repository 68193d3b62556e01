"""Where images come from: each source becomes one domain of the data."""

from moebius.kit.registry import open_room

open_room(__name__)
