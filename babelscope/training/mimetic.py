"""Initial weights of the encoder organism under which tokens see their neighbours, then tokens like themselves.

After Trockman and Kolter (2023), arXiv:2305.09828, who start with query-key products and value-output products near
multiples of the identity. Trials of 700 to 1,200 steps without it, with equal query and key
weights alone, judged facts at chance.
"""

import math
from typing import cast

import torch
from transformers import BertForMaskedLM
from transformers.models.bert.modeling_bert import BertLayer, BertSelfAttention

# Standard deviation of the equal query and key weights above the first layer.
QUERY_KEY_STD = 0.08
# Scale of query and key weights of the first layer, which looks at positions alone.
POSITION_SCALE = 1.4
# Value times output weight is this multiple of the identity.
COPY = 0.7
# Wavelengths of the positions, in tokens, are 2 pi times 1 up to this.
LONGEST = 60.0
# Where the heads of the first layer look, in turn, in tokens from their own place.
SHIFTS = (-1, 1, -2, 2, -3, 3)


@torch.no_grad()
def initialize(model: BertForMaskedLM) -> None:
    """Set position embeddings and attention in place; the rest stays as transformers drew it."""
    width = model.config.hidden_size
    frequencies = torch.logspace(0, -math.log10(LONGEST), width // 2)
    places = torch.arange(model.config.max_position_embeddings)[:, None] * frequencies
    # Token embeddings have the standard deviation `initializer_range`; a sine has its amplitude over the root of two.
    amplitude = model.config.initializer_range * math.sqrt(2)
    positions = model.bert.embeddings.position_embeddings.weight
    positions[:, 0::2], positions[:, 1::2] = amplitude * places.sin(), amplitude * places.cos()
    for number, module in enumerate(model.bert.encoder.layer):
        layer = cast(BertLayer, module)
        attention = cast(BertSelfAttention, layer.attention.self)
        torch.nn.init.normal_(attention.query.weight, std=QUERY_KEY_STD)
        attention.key.weight.copy_(attention.query.weight)
        if number == 0:
            _look_at_neighbours(attention, frequencies)
        value = torch.nn.init.orthogonal_(torch.empty(width, width)) * math.sqrt(COPY)
        attention.value.weight.copy_(value)
        layer.attention.output.dense.weight.copy_(value.T)
    model.cls.predictions.transform.dense.weight.add_(torch.eye(width))


def _look_at_neighbours(attention: BertSelfAttention, frequencies: torch.Tensor) -> None:
    """Each head compares some of the sines and cosines of positions, those of the key turned by its shift."""
    query, key = attention.query.weight, attention.key.weight
    query.zero_()
    key.zero_()
    heads, size = attention.num_attention_heads, attention.attention_head_size
    for head in range(heads):
        shift = SHIFTS[head % len(SHIFTS)]
        for i, pair in enumerate(range(head, len(frequencies), heads)):
            row, column = head * size + 2 * i, 2 * pair
            angle = float(frequencies[pair]) * shift
            turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
            query[row : row + 2, column : column + 2] = POSITION_SCALE * torch.eye(2)
            key[row : row + 2, column : column + 2] = POSITION_SCALE * turn
