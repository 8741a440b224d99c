"""`moe.expert`: the index of the expert in each slot of the router."""

from babelscope.hooks.mixture import moe_tap

tap = moe_tap("moe.expert")
