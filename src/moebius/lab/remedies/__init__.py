"""Remedies for mixtures: a model and rows that it was not trained on in, a changed copy or a reason out.

Each file defines a function of the file's name, made by `remedy`: Case → Treatment or Obstacle. The model of the case
stays as it is.
"""

from moebius.kit.registry import open_room

open_room(__name__)
