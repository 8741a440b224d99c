"""The nouns: frozen values that every other part speaks in. No torch, no h5py."""

from babelscope.schema.captured import SPELLINGS, Answers, Block, Rows
from babelscope.schema.plan import ANSWERS, DECODER_POLICIES, LEVERS, ON_OVERFLOW, CapturePlan, ModelRef
from babelscope.schema.position import Position
from babelscope.schema.prompts import Prompt, PromptSet, Segment, concatenate
from babelscope.schema.results import Result
from babelscope.schema.site import SITE_KINDS, Site, expand_sites

__all__ = [
    "ANSWERS",
    "DECODER_POLICIES",
    "LEVERS",
    "ON_OVERFLOW",
    "SITE_KINDS",
    "SPELLINGS",
    "Answers",
    "Block",
    "CapturePlan",
    "ModelRef",
    "Position",
    "Prompt",
    "PromptSet",
    "Result",
    "Rows",
    "Segment",
    "Site",
    "concatenate",
    "expand_sites",
]
