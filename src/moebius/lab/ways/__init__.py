"""Ways to make one model of trained networks: their outputs on rows in, a module or a reason out.

Each file defines a function of the file's name, made by `way`: Pool → Composed or Obstacle. The networks stay as they
are.
"""

from moebius.kit.registry import open_room

open_room(__name__)
