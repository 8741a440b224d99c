"""`cross.v`: values, in attention to the encoder."""

from babelscope.hooks.attention import handed_over_tap

tap = handed_over_tap("cross", "value")
