"""`attn.mass`: the pattern summed up, in attention of a block to its own stack."""

from babelscope.hooks.attention import mass_tap

tap = mass_tap("attn")
