"""`attn.pattern`: what the softmax returns, in attention of a block to its own stack."""

from babelscope.hooks.attention import softmax_tap

tap = softmax_tap("attn", "pattern")
