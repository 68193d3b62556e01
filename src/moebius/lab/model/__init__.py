"""Mixtures built from the `model` part of a recipe, and the cost of running them."""
