"""Probes: small estimators fitted on stored activations, never tested on an item that they have seen."""
