"""`attn.v`: values, in attention of a block to its own stack."""

from babelscope.hooks.attention import handed_over_tap

tap = handed_over_tap("attn", "value")
