"""Parallel prompts: generators, and loaders of a researcher's own files."""
