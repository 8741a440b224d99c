"""Embedded models: one folder each, loadable with `from_pretrained`, with its model card."""
