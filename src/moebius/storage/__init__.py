"""Mixtures on disk and in other forms: save, load, edit, export."""
