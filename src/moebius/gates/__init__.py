"""Gates give each expert a score for each row: x → scores (…, E)."""

from moebius.kit.registry import open_room

open_room(__name__)
