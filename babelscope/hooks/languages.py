"""The language of each token, which models with a cross-lingual query read beside the tokens."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from babelscope.hooks.tokens import Encoded
from babelscope.qcross.injection import config_of
from babelscope.qcross.masks import PADDING
from babelscope.schema import Prompt


def token_languages(
    model: PreTrainedModel, prompts: Sequence[Prompt], encoded: Sequence[Encoded], device: torch.device
) -> Tensor | None:
    """Number of the language of each token, (prompt, token), for a model that reads it; else None.

    A token has the language of the segment that its first character lies in. One that lies in none, as separators and
    special tokens do, has that of the token before it; those at the beginning that of the first one that has any: so
    [CLS] belongs to the context, and the last [SEP] to the question (arXiv:2310.15258, the authors' preparation of
    data). A prompt whose segments name one language is monolingual, and its attention the ordinary one.
    """
    if config_of(model) is None:
        return None
    codes = sorted({s.language for p in prompts for s in p.segments} | {p.language for p in prompts})
    number = {code: i for i, code in enumerate(codes)}
    ids = torch.full((len(prompts), max(map(len, encoded))), PADDING)
    for row, (prompt, tokens) in enumerate(zip(prompts, encoded, strict=True)):
        languages = [number[code] for code in _languages(prompt, tokens)]
        ids[row, : len(languages)] = torch.tensor(languages)
    return ids.to(device)


def _languages(prompt: Prompt, encoded: Encoded) -> list[str]:
    found: list[str] = []
    for begin, end in encoded.spans or ((0, 0),) * len(encoded):
        inside = [s.language for s in prompt.segments if begin < end and s.start <= begin < s.stop]
        found.append(inside[0] if inside else (found[-1] if found else ""))
    first = next((code for code in found if code), prompt.language)
    return [code or first for code in found]
