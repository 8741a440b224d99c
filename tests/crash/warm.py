"""What every process does once that captures: hundreds of regular expressions of transformers, and all taps."""

from transformers.conversion_mapping import get_checkpoint_conversion_mapping

from babelscope import plugins

get_checkpoint_conversion_mapping("llama")
for name in plugins.names("tap"):
    plugins.load("tap", name)
