"""Shared prefixes: what prompts have in common at their start is run once, and each prompt is continued from there.

Prompts of one language share an instruction, and groups of them share more, such as the line that names a rule.
A tree over their token ids finds these runs; the keys and values of each run are kept while its prompts are run.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel

from babelscope.hooks.tokens import batches
from babelscope.schema.plan import PASS_COST

# Tokens that a prefix has to save before it is run on its own: every run costs one more forward pass, and prompts
# that share no more than their parents do are batched apart. Measured on a CPU, see benchmarks/capture.py.
WORTH = 128

Ids: TypeAlias = tuple[int, ...]
Path: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Prompts of one batch, by index, and the lengths of the nested runs at their start that are run before them."""

    rows: tuple[int, ...]
    shared: tuple[int, ...] = ()


def shared_batches(ids: Sequence[Ids], token_budget: int, pass_cost: int) -> list[Group]:
    """Prompts grouped by what they share at the start, then by length.

    A function of the ids alone, so that equal input gives equal batches. The last token is never shared.

    Parameters
    ----------
    token_budget : int
        Most tokens of one batch. Keys of the prefix count an eighth: they are read, but nothing is computed.
    pass_cost : int
        Tokens that one more forward pass is worth.
    """
    found: list[Group] = []
    for rows, shared in _leaves(ids, range(len(ids)), (), WORTH * pass_cost // PASS_COST):
        start = shared[-1] if shared else 0
        lengths = [len(ids[i]) - start + start // 8 for i in rows]
        found += [Group(tuple(rows[i] for i in group), shared) for group in batches(lengths, token_budget, pass_cost)]
    return found


def _leaves(ids: Sequence[Ids], rows: Sequence[int], path: Path, worth: int) -> Iterator[tuple[list[int], Path]]:
    """Rows that share a path of runs and no longer one: every row once, neighbors in the tree next to each other."""
    start = path[-1] if path else 0
    length = _common([ids[i] for i in rows])
    if (len(rows) - 1) * (length - start) >= worth:
        yield from _leaves(ids, rows, (*path, length), worth)
        return
    alone: list[int] = []
    for children in _by_next_token(ids, rows, length):
        split = list(_leaves(ids, children, path, worth)) if len(children) > 1 else [(children, path)]
        for leaf, shared in split:
            if shared == path:
                alone += leaf
            else:
                yield leaf, shared
    if alone:
        yield sorted(alone), path


def _common(ids: Sequence[Ids]) -> int:
    """Length of what all begin with; that of the least and the greatest is that of all."""
    first, last = min(ids), max(ids)
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return min(same, min(map(len, ids)) - 1)


def _by_next_token(ids: Sequence[Ids], rows: Sequence[int], length: int) -> list[list[int]]:
    found: dict[int, list[int]] = {}
    for i in rows:
        found.setdefault(ids[i][length], []).append(i)
    # Rows that no token tells apart would never be split any further.
    return [[i] for i in rows] if len(found) == 1 else list(found.values())


@dataclass(slots=True)
class PrefixCache:
    """Keys and values of the runs that the last batch began with, outermost first.

    Parameters
    ----------
    model : PreTrainedModel
    run : callable
        (ids (1, token), cache) -> None: continue the cache by these tokens, at batch size one.
    """

    model: PreTrainedModel
    run: Callable[[Tensor, Cache], None]
    _kept: list[tuple[Ids, Cache]] = field(default_factory=list)

    def continued(self, ids: Tensor, shared: Sequence[int]) -> Cache:
        """A cache behind the shared runs for a batch of prompts, to be used once.

        Parameters
        ----------
        ids : Tensor
            (prompt, token), the same in all rows up to `shared[-1]`.
        """
        bounds = list(zip((0, *shared), shared, strict=False))
        runs = [tuple(ids[0, a:b].tolist()) for a, b in bounds]
        same = 0
        while same < min(len(runs), len(self._kept)) and self._kept[same][0] == runs[same]:
            same += 1
        del self._kept[same:]
        for run, (a, b) in zip(runs[same:], bounds[same:], strict=True):
            config = self.model.config
            cache = _copied(self._kept[-1][1]) if self._kept else DynamicCache(config=config)
            self.run(ids[:1, a:b], cache)
            self._kept.append((run, cache))
        return _spread(self._kept[-1][1], len(ids))


def _copied(cache: Cache) -> Cache:
    """A cache that grows on its own; tensors are shared, since growing replaces them."""
    twin = copy.copy(cache)
    twin.layers = [copy.copy(layer) for layer in cache.layers]
    return twin


def _spread(cache: Cache, n: int) -> Cache:
    """The cache of one prompt for `n` of them, without copying; it forgets what it is updated with."""
    spread = _copied(cache)
    layers: list[Any] = spread.layers  # those of linear attention have no keys; what comes of it is found out
    for layer in layers:
        layer.keys = layer.keys.expand(n, -1, -1, -1)
        layer.values = layer.values.expand(n, -1, -1, -1)
        layer.update = _forgetful(layer)
    return spread


def _forgetful(layer: Any) -> Callable[..., tuple[Tensor, Tensor]]:
    # Nobody continues from the ends of prompts; keeping them would hold all layers in memory at once.
    grow = type(layer).update

    def update(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = grow(copy.copy(layer), *args, **kwargs)
        return found

    return update
