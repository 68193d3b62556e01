"""Ready-made layers: mixtures that mix rows, or whose gate reads the experts, and blocks for transformers."""

from moebius.kit.registry import open_room

open_room(__name__)
