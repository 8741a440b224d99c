"""Recipes: studies of a store that are more than one number per item and pair; one file each, found by its name."""
