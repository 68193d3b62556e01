"""Gates compute a score of each expert for each row: x → scores (…, E)."""

from moebius.kit.registry import open_room

open_room(__name__)
