"""Where images come from: each source becomes one domain of the data."""

from moebius.registry import open_room

open_room(__name__)
