"""`cross.mass`: the pattern summed up, in attention to the encoder."""

from babelscope.hooks.attention import mass_tap

tap = mass_tap("cross")
