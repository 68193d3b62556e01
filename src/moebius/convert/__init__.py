"""Layers of this library from blocks of other libraries, and back."""

from moebius.convert.from_transformers import from_transformers as from_transformers
from moebius.convert.to_transformers import to_transformers as to_transformers

__all__ = ["from_transformers", "to_transformers"]
