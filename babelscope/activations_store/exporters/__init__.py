"""Formats that a store can be exported to, one file each."""
