"""Similarities of two blocks of items: one file each, found by its name."""
