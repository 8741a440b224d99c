"""The language of each token, which models with a cross-lingual query read beside the tokens."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from babelscope.errors import BabelScopeError
from babelscope.hooks.tokens import Encoded
from babelscope.qcross.injection import config_of
from babelscope.qcross.masks import PADDING
from babelscope.qcross.token_languages import languages_of
from babelscope.schema import Prompt


def token_languages(
    model: PreTrainedModel, prompts: Sequence[Prompt], encoded: Sequence[Encoded], device: torch.device
) -> Tensor | None:
    """Number of the language of each token, (prompt, token), for a model that reads it; else None.

    `qcross.token_languages` says which language a token has.

    Raises
    ------
    BabelScopeError
        If a prompt has segments in two languages, and the tokenizer does not say where its tokens stand.
    """
    if config_of(model) is None:
        return None
    codes = sorted({s.language for p in prompts for s in p.segments} | {p.language for p in prompts})
    number = {code: i for i, code in enumerate(codes)}
    ids = torch.full((len(prompts), max(map(len, encoded))), PADDING)
    for row, (prompt, tokens) in enumerate(zip(prompts, encoded, strict=True)):
        if tokens.spans is None and len({s.language for s in prompt.segments}) > 1:
            raise BabelScopeError(
                f"item {prompt.item} has two languages; the tokenizer does not say which characters its tokens cover",
                "use the fast tokenizer of the model (tokenizer.json)",
            )
        languages = [number[code] for code in languages_of(prompt, tokens.spans or ((0, 0),) * len(tokens))]
        ids[row, : len(languages)] = torch.tensor(languages)
    return ids.to(device)
