"""File formats that prompts are read from: each module defines `loader`."""
