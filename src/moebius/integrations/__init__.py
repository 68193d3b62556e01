"""Mixtures of other libraries: for each family of blocks, how it is recognised and its routings are read."""

import moebius.integrations._family as _family
from moebius.integrations import transformers as transformers
from moebius.kit.registry import open_room

# The class that families of your own are made from.
Family = _family.Family

open_room(__name__)
