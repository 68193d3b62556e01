"""What a model learns: the loss and the score of each row, the loss of each expert, the prediction."""

from moebius.kit.registry import open_room

open_room(__name__)
