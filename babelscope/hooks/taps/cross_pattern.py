"""`cross.pattern`: what the softmax returns, in attention to the encoder."""

from babelscope.hooks.attention import softmax_tap

tap = softmax_tap("cross", "pattern")
