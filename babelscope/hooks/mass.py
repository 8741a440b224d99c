"""Attention reduced to a few numbers per query token and head, from a pattern or from what SDPA was called with.

Mass on some keys is attention applied to their indicator column, so SDPA itself computes it: the model's kernel is
called again with other values, and no token x token tensor is made. The entropy needs the log-sum-exp, which the
kernel returns, and the mean score, which is the dot product of the query and the mean key under attention.
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional

# The kernel rounds what it returns to the dtype of the model. Mean positions counted from the middles of this many
# parts of the prompt keep that rounding in proportion to the distance itself: bfloat16 has eight bits.
PARTS = 8

# Vectors of the kernel are filled by this many values, in float32 and in the half types.
LANES = 32


@dataclass(frozen=True, slots=True, eq=False)
class DotProducts:
    """What SDPA was called with.

    Parameters
    ----------
    query, key : Tensor
        (prompt, head, token, dim); the heads of the key divide those of the query.
    mask : Tensor or None
        Boolean (True is seen) or added to the scores; broadcasts to (prompt, head, query, key).
    is_causal : bool
    scale : float
    """

    query: Tensor
    key: Tensor
    mask: Tensor | None
    is_causal: bool
    scale: float

    def unpacked(self, n_queries: int) -> "DotProducts":
        """With one row per query token: of a single one, transformers packs the heads that share a key into rows."""
        if self.query.shape[2] == n_queries:
            return self
        batch, _, _, dim = self.query.shape
        mask = self.mask
        if mask is not None and mask.shape[1] != 1:
            mask = mask.reshape(batch, -1, n_queries, mask.shape[-1])
        return replace(self, query=self.query.reshape(batch, -1, n_queries, dim), mask=mask)

    def repeated(self) -> Tensor:
        """The key with as many heads as the query."""
        times = self.query.shape[1] // self.key.shape[1]
        return self.key.repeat_interleave(times, 1) if times > 1 else self.key


@dataclass(slots=True, eq=False)
class Reduction:
    """How the attention of one batch is reduced; the same for all layers of a stack.

    A token belongs to every segment that one of its characters belongs to, so masses of touching segments can
    overlap; special tokens belong to none. A prompt without a segment has no mass on it: NaN, not 0. The first token
    is the first real one, special or not. Distance is query minus key in tokens, averaged under the pattern;
    negative where the model looks ahead, NaN where queries and keys are tokens of different stacks. Attention sinks
    that a model adds to its softmax are no keys: they are left out of everything.

    Parameters
    ----------
    queries, keys : Tensor
        Masks, (prompt, token).
    segments : Tensor
        (prompt, key, segment): 1 inside, 0 outside, NaN where the prompt lacks it.
    same_tokens : bool
        Whether queries and keys are the same tokens.
    last_only : bool
        Reduce the row of the last token alone; NaN in all others.
    even : bool
        Behind the summaries the same ones of attention that is spread evenly over the keys which the token sees: what
        they are for no reason but the number and the places of tokens. In a pattern, a key is seen if some head gives
        it weight: masks are the same for all heads, while biases (ALiBi) can leave nothing of far keys in some.
    """

    queries: Tensor
    keys: Tensor
    segments: Tensor
    same_tokens: bool
    last_only: bool
    even: bool = False
    _causal: list[tuple[Tensor, bool]] = field(default_factory=list)  # masks are shared by layers: looked at once

    def of_pattern(self, pattern: Tensor) -> Tensor:
        """(prompt, head, query, key) -> (prompt, query, head, summary) in float32, prompt by prompt."""
        n = self.queries.shape[1]
        if self.last_only:
            rows = _rows(pattern, self._last(pattern.device))
            return self._scattered(self._reduced(rows, self._last(pattern.device)[:, None]))
        at = torch.arange(n, device=pattern.device)[None]
        return torch.cat([self._reduced(pattern[i : i + 1], at, slice(i, i + 1)) for i in range(len(pattern))])

    def of_dot_products(self, dots: DotProducts) -> Tensor:
        """The same from what SDPA was called with."""
        dots = dots.unpacked(self.queries.shape[1])
        if self.last_only:
            return self._last_row(dots)
        if _has_fused_kernel(dots):
            return self._fused(dots)
        # Elsewhere one prompt of one layer at a time.
        at = torch.arange(dots.query.shape[2], device=dots.query.device)[None]
        return torch.cat([self._reduced(_pattern(dots, i), at, slice(i, i + 1)) for i in range(len(dots.query))])

    def _last(self, device: torch.device) -> Tensor:
        return self.queries.sum(1).to(device) - 1

    def _reduced(self, pattern: Tensor, at: Tensor, prompts: slice = slice(None)) -> Tensor:
        """Patterns (prompt, head, row, key) of the rows `at` (prompt, row) -> (prompt, row, head, summary)."""
        keys = self.keys[prompts].to(pattern.device)
        p = pattern.float() * keys[:, None, None, :]
        found = self._summaries(p, at, prompts)
        return self._beside(found, self._summaries(evenly((p > 0).any(1)), at, prompts)) if self.even else found

    def _summaries(self, p: Tensor, at: Tensor, prompts: slice) -> Tensor:
        segments = self.segments[prompts].to(p.device)
        entropy = torch.special.entr(p).sum(-1)
        if self.same_tokens:
            away = (at[:, :, None] - torch.arange(p.shape[-1], device=p.device)).float()
            distance = torch.einsum("bhqk,bqk->bhq", p, away.expand(len(p), -1, -1))
        else:
            distance = torch.full_like(entropy, torch.nan)
        first = torch.stack([entropy, p[..., 0], distance], -1)
        return torch.cat([first, p @ segments[:, None]], -1).transpose(1, 2)

    @staticmethod
    def _beside(found: Tensor, even: Tensor) -> Tensor:
        """Summaries, and behind them those of even attention, which have no heads: (prompt, row, 1, summary)."""
        return torch.cat([found, even.expand(-1, -1, found.shape[2], -1)], -1)

    def _scattered(self, rows: Tensor) -> Tensor:
        """(prompt, 1, head, summary) of the last tokens among rows of NaN."""
        out = rows.new_full((len(rows), self.queries.shape[1], *rows.shape[2:]), torch.nan)
        out[torch.arange(len(rows), device=rows.device), self._last(rows.device)] = rows[:, 0]
        return out

    def _last_row(self, dots: DotProducts) -> Tensor:
        """One query per prompt: as many dot products as there are keys."""
        last = self._last(dots.query.device)
        query, (batch, heads, n_keys, _) = _rows(dots.query, last), dots.key.shape
        scores = (query.reshape(batch, heads, -1, query.shape[-1]) @ dots.key.transpose(-1, -2)).float()
        scores = scores.reshape(batch, query.shape[1], 1, n_keys) * dots.scale
        if dots.mask is not None:
            scores = _masked(scores, _rows(dots.mask.expand(batch, -1, dots.query.shape[2], -1), last))
        elif dots.is_causal:
            beyond = torch.arange(n_keys, device=scores.device) > last[:, None]
            scores = scores.masked_fill(beyond[:, None, None], -torch.inf)
        return self._scattered(self._reduced(scores.softmax(-1), last[:, None]))

    def _fused(self, dots: DotProducts) -> Tensor:
        query, key = dots.query, dots.repeated()
        # Scores can share a large offset (key biases); taken out, it costs no digits of what the kernel rounds.
        offset = key.mean(2, keepdim=True)
        columns = self._columns(key)[:, None].expand(-1, key.shape[1], -1, -1)
        averages, log_sum = self._averaged(dots, torch.cat([key - offset, columns], -1))
        dim, n_segments = key.shape[-1], self.segments.shape[-1]
        mean_key, first, masses, places = averages.tensor_split([dim, dim + 1, dim + 1 + n_segments], -1)
        mean_score = (query.float() * (mean_key + offset)).sum(-1)
        entropy = (log_sum - dots.scale * mean_score).clamp_min(0)
        lacking = self.segments[:, 0].isnan().to(key.device)[:, None, None]
        found = [entropy[..., None], first, self._distance(places)[..., None], masses.masked_fill(lacking, torch.nan)]
        summaries = torch.cat(found, -1).transpose(1, 2)
        return self._beside(summaries, self._evened(dots)) if self.even else summaries

    def _evened(self, dots: DotProducts) -> Tensor:
        """Summaries of even attention, (prompt, query, 1, summary); token x token only where the mask is."""
        keys, segments = (x.to(dots.query.device) for x in (self.keys, self.segments))
        n, mask = dots.query.shape[2], dots.mask
        causal = dots.is_causal if mask is None else self._is_plainly_causal(mask)
        if mask is not None and not causal:
            seen = mask.expand(len(keys), -1, n, keys.shape[1])[:, 0] & keys.bool()[:, None]
            at = torch.arange(n, device=keys.device)[None]
            rows = [self._summaries(evenly(seen[i : i + 1]), at, slice(i, i + 1)) for i in range(len(seen))]
            return torch.cat(rows)
        at = torch.arange(keys.shape[1], device=keys.device).float()
        held = torch.cat([keys[..., None], (keys * at)[..., None], keys[..., None] * segments], -1).double()
        held = held.cumsum(1) if causal else held.sum(1, keepdim=True).expand(-1, n, -1)
        number, places, masses = held.tensor_split([1, 2], -1)
        own = torch.arange(n, device=keys.device).double()[None, :, None]
        distance = own - places / number if self.same_tokens else torch.full_like(places, torch.nan)
        found = torch.cat([number.log(), keys[:, None, :1] / number, distance, masses / number], -1)
        return found.float()[:, :, None]

    def _columns(self, key: Tensor) -> Tensor:
        """(prompt, key, column): the first token; the segments; the parts of the prompt, and the offset in each."""
        n_prompts, n_keys, device = key.shape[0], key.shape[2], key.device
        at = torch.arange(n_keys, device=device)
        first = (at == 0)[None, :, None].expand(n_prompts, -1, -1)
        columns = [first.float(), self.segments.to(device).nan_to_num(0.0).float()]
        if self.same_tokens:
            size = -(-n_keys // PARTS)
            inside = functional.one_hot(at // size, PARTS).float()
            within = inside * (at % size - size // 2)[:, None]
            columns += [x[None].expand(n_prompts, -1, -1) for x in (inside, within)]
        return torch.cat(columns, -1).to(key.dtype)

    def _averaged(self, dots: DotProducts, values: Tensor) -> tuple[Tensor, Tensor]:
        """Averages of values under attention and the log-sum-exp, by the kernel behind SDPA, which drops the latter.

        The kernel wants queries and keys as wide as values: columns of zeros change no score, and cost less than
        going over all scores once more for a second set of values.
        """
        query, key, mask, is_causal = dots.query, dots.repeated(), dots.mask, dots.is_causal
        if mask is not None and self._is_plainly_causal(mask):
            mask, is_causal = None, True  # right padding is not seen by real tokens; the kernel skips half the work
        if mask is not None:
            mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, -torch.inf)
            mask = mask.expand(len(query), -1, query.shape[2], key.shape[2])
        width = -(-values.shape[-1] // LANES) * LANES
        query, key, padded = (functional.pad(x, (0, width - x.shape[-1])) for x in (query, key, values))
        out, log_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, padded, 0.0, is_causal, attn_mask=mask, scale=dots.scale
        )
        return out[..., : values.shape[-1]].float(), log_sum

    def _distance(self, places: Tensor) -> Tensor:
        """Mean of query - key from (prompt, head, query, 2 x part): mass on each part, mean offset in each."""
        if not self.same_tokens:
            return places.new_full(places.shape[:-1], torch.nan)
        (parts, offsets), n = places.chunk(2, -1), places.shape[2]
        size = -(-n // PARTS)
        middles = torch.arange(PARTS, device=parts.device) * size + size // 2
        away = torch.arange(n, device=parts.device)[:, None] - middles
        return (parts * away).sum(-1) - offsets.sum(-1)

    def _is_plainly_causal(self, mask: Tensor) -> bool:
        """Whether real tokens see exactly the tokens up to themselves: no window, no bias, no image."""
        for known, answer in self._causal:
            if known is mask:
                return answer
        answer = mask.dtype == torch.bool and mask.ndim == 4 and mask.shape[1] == 1 and self.same_tokens
        if answer:
            n = self.keys.shape[1]
            causal = torch.ones(n, n, dtype=torch.bool, device=mask.device).tril()
            seen, real = mask[:, 0], self.queries.bool().to(mask.device)
            wanted = causal & self.keys.bool().to(mask.device)[:, None]
            answer = seen.shape[-2:] == (n, n) and bool(((seen == wanted) | ~real[:, :, None]).all())
        self._causal.append((mask, answer))
        return answer


def evenly(seen: Tensor) -> Tensor:
    """Attention spread over the keys that are seen: (prompt, query, key) -> (prompt, 1, query, key)."""
    return (seen / seen.sum(-1, keepdim=True).clamp_min(1)).float()[:, None]


def _rows(x: Tensor, last: Tensor) -> Tensor:
    """(prompt, head, query, ...) -> (prompt, head, 1, ...), the row of each prompt's last token."""
    return x[torch.arange(len(x), device=x.device), :, last].unsqueeze(2)


def _masked(scores: Tensor, mask: Tensor) -> Tensor:
    return scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask


def _pattern(dots: DotProducts, prompt: int) -> Tensor:
    """The pattern of one prompt, (1, head, query, key), in float32."""
    one = slice(prompt, prompt + 1)
    scores = dots.query[one].float() @ dots.repeated()[one].float().transpose(-1, -2) * dots.scale
    if dots.mask is not None:
        mask = dots.mask.expand(len(dots.query), -1, -1, -1)
        scores = _masked(scores, mask[one])
    elif dots.is_causal:
        unseen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(unseen, -torch.inf)
    return scores.softmax(-1)


def _has_fused_kernel(dots: DotProducts) -> bool:
    """Whether the kernel that returns its log-sum-exp takes these tensors, and the mean score is a product with keys.

    A bias that depends on query and key (T5) adds its own mean to that of the scores, which no column gives.
    """
    unbiased = dots.mask is None or dots.mask.dtype == torch.bool
    return unbiased and dots.query.device.type == "cpu" and dots.query.shape[-1] == dots.key.shape[-1]
