"""`cross.heads`: what the output projection of attention to the encoder reads, one row of it per head."""

from babelscope.hooks.attention import heads_tap

tap = heads_tap("cross")
