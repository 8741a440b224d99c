"""`cross.scores`: what the softmax reads, in attention to the encoder."""

from babelscope.hooks.attention import softmax_tap

tap = softmax_tap("cross", "scores")
