"""`cross.out`: what the output projection of attention to the encoder returns."""

from babelscope.hooks.attention import out_tap

tap = out_tap("cross")
