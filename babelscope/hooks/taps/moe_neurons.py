"""`moe.neurons`: what the down projections of the selected experts read, a row of it per slot of the router."""

from babelscope.hooks.mixture import moe_tap

tap = moe_tap("moe.neurons")
