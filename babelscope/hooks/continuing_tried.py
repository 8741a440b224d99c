"""What a model can be continued from, tried before it is: caches differ in what they bear.

Recurrent states of some hybrids cannot be given to several candidates, others go wrong when several tokens follow at
once, and some models keep none. Reading a prompt again with what follows it is exact wherever tokens see only what
stands before them, which is tried as well.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from babelscope.errors import BabelScopeError
from babelscope.hooks.continuing import Cached, Read, goes_on, read, selected
from babelscope.hooks.memory import out_of_memory
from babelscope.hooks.models import LoadedModel
from babelscope.hooks.tokens import Encoded
from babelscope.hooks.tolerance import PASS, typical_error

# Two prompts of random tokens, and as many tokens behind each.
LENGTH, FURTHER = 19, 3


def tried(loaded: LoadedModel, *, scoring: bool = True, writing: bool = True) -> tuple[Cached, str]:
    """What the cache of a model bears, and a line about what it does not.

    The reference reads the text up to each token by itself. The tokens are always the same ones, so a resumed capture
    decides as the first one did.

    Parameters
    ----------
    scoring, writing : bool
        What is going to be done; nothing else is tried.

    Raises
    ------
    BabelScopeError
        If neither the cache nor reading everything again gives the numbers of the reference.
    """
    ids = _tokens(loaded)
    encoder = [Encoded(tuple(x), None) for x in ids.tolist()] if loaded.ref.n_encoder_layers else None

    def begun(n: int, *, cached: bool) -> Read:
        texts = [Encoded(tuple(x[:n]), None) for x in ids.tolist()]
        return read(loaded, encoder or texts, texts if encoder else None, cached=cached)

    further = ids[:, LENGTH:].to(loaded.device)
    every, mixed = (torch.tensor(rows, device=loaded.device) for rows in ([0, 1], [1, 0, 1]))

    def at_once() -> Tensor:
        seen = begun(LENGTH, cached=True)
        return goes_on(loaded, seen, further[mixed], mixed, selected(seen, mixed, keep=True))

    def one_by_one() -> Tensor:
        seen = begun(LENGTH, cached=True)
        steps = [goes_on(loaded, seen, further[:, : n + 1], every, seen.cache, n) for n in range(FURTHER)]
        return torch.cat(steps, 1)

    def again() -> Tensor:
        return goes_on(loaded, begun(LENGTH, cached=False), further, every, None)

    with torch.inference_mode():
        expected = torch.stack([begun(LENGTH + n + 1, cached=False).logits for n in range(FURTHER)], 1)
        limit = PASS[loaded.model.dtype]
        cached = Cached(
            not scoring or _agrees(at_once, expected[mixed], limit),
            not writing or _agrees(one_by_one, expected, limit),
        )
        if all(cached):
            return cached, ""
        if not _agrees(again, expected, limit):
            raise BabelScopeError(
                f"{loaded.anatomy.name} does not continue texts: what it says behind a token depends on later ones",
                "leave out --continue, and give --answers labels or none",
            )
    what = " and ".join(name for name, fine in zip(("option texts", "continuations"), cached, strict=True) if not fine)
    return cached, f"the cache of {loaded.anatomy.name} does not bear {what}: prompts are read again with them, slower"


def _tokens(loaded: LoadedModel) -> Tensor:
    """(prompt, token): valid everywhere, and none of the first, which are special in most vocabularies."""
    vocabulary = loaded.anatomy.output_stack.embedding.num_embeddings
    assert isinstance(vocabulary, int)
    generator = torch.Generator().manual_seed(0)
    return torch.randint(min(8, vocabulary - 1), vocabulary, (2, LENGTH + FURTHER), generator=generator)


def _agrees(run: Callable[[], Tensor], expected: Tensor, limit: float) -> bool:
    try:
        return typical_error(run(), expected) <= limit
    except Exception as error:  # whatever a model file raises when it is run in a way it was not written for
        if isinstance(error, AssertionError) or out_of_memory(error):
            raise
        return False
