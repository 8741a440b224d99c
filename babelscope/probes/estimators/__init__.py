"""Estimators, one file each: a module that defines `probe` is the probe named as the file is."""
