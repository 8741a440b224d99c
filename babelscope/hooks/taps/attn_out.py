"""`attn.out`: what the output projection of attention returns."""

from babelscope.hooks.attention import out_tap

tap = out_tap("attn")
