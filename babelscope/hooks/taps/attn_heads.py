"""`attn.heads`: what the output projection of attention reads, one row of it per head."""

from babelscope.hooks.attention import heads_tap

tap = heads_tap("attn")
