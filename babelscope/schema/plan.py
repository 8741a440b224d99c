"""A capture plan: which model reads which prompts, and what is kept. Its hash is the identity of a store."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from babelscope.schema.position import Position
from babelscope.schema.site import Site

# What the decoder of an encoder-decoder reads while the encoder reads the prompt.
DECODER_POLICIES = {
    "start": "the token that starts a decoder",
    "language": "that token and the one that names the language of the prompt (NLLB, M2M100, mBART)",
    "copy": "the prompt again, behind the token that starts a decoder",
}

# Ways to compute less for the rows of last tokens. They round differently, so they belong to the identity.
LEVERS = {
    "unmasked": "causal models read right-padded batches without a mask",
    "pruned": "the last block that is run computes the last token of each prompt alone",
    "prefixes": "what the prompts of a block share at their start is run once",
}


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model as it was loaded: where from, and a hash of what was loaded.

    `source` says how the user named it (path or hub id) and is provenance; the hashes are identity. `n_layers`
    counts the blocks; in encoder-decoders those of the decoder, beside `n_encoder_layers`.
    """

    source: str
    architecture: str
    n_layers: int
    dtype: str
    weights_sha256: str
    tokenizer_sha256: str
    revision: str = ""
    attn_implementation: str = ""
    config_sha256: str = ""
    n_encoder_layers: int = 0

    @property
    def depths(self) -> dict[str, int]:
        """Stack -> number of its blocks; the only stack of most models is called ""."""
        if self.n_encoder_layers:
            return {"enc": self.n_encoder_layers, "dec": self.n_layers}
        return {"": self.n_layers}


@dataclass(frozen=True, slots=True)
class CapturePlan:
    """ModelRef x prompts x sites x positions.

    Parameters
    ----------
    model : ModelRef
    prompts_sha256 : str
        `PromptSet.digest()` of the prompts.
    languages, items : tuple of str
        Row order of the store.
    sites : tuple of Site
    positions : tuple of Position
    answers : bool
        Whether option log-scores are kept for items that have options.
    backend : str
    block_items : int
        Items per shard. No forward batch mixes two blocks.
    token_budget : int
        Most tokens (padding included) in one forward batch.
    dtype : str
        Stored dtype: "float32", "float16" or "bfloat16".
    decoder : str
        What the decoder of an encoder-decoder reads, a key of `DECODER_POLICIES`; "" in other models.
    levers : tuple of str
        Keys of `LEVERS`; a backend leaves out those that change the numbers of its model.
    """

    model: ModelRef
    prompts_sha256: str
    languages: tuple[str, ...]
    items: tuple[str, ...]
    sites: tuple[Site, ...]
    positions: tuple[Position, ...]
    answers: bool
    backend: str
    block_items: int
    token_budget: int
    dtype: str
    decoder: str = ""
    levers: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values; `from_json` is the inverse."""
        record = asdict(self)
        record["sites"] = [str(s) for s in self.sites]
        record["positions"] = [str(p) for p in self.positions]
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "CapturePlan":
        """Rebuild a plan from `to_json`."""
        values = dict(record)
        values["model"] = ModelRef(**values["model"])
        values["sites"] = tuple(Site.parse(s) for s in values["sites"])
        values["positions"] = tuple(Position.parse(p) for p in values["positions"])
        for name in ("languages", "items", "levers"):
            values[name] = tuple(values.get(name, ()))
        return cls(**values)

    def identity(self) -> dict[str, Any]:
        """The fields that decide the captured numbers. Two runs with equal identity may share a store."""
        record: dict[str, Any] = json.loads(json.dumps(self.to_json()))
        record["model"].pop("source")
        return record

    @property
    def fingerprint(self) -> str:
        """Hex sha256 of the canonical JSON of `identity`."""
        text = json.dumps(self.identity(), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def n_blocks(self) -> int:
        """Blocks of items per language."""
        return -(-len(self.items) // self.block_items)

    def block(self, index: int) -> range:
        """Item indices of one block."""
        return range(index * self.block_items, min((index + 1) * self.block_items, len(self.items)))

    def site_layers(self) -> dict[str, tuple[int | None, ...]]:
        """Site name -> its layers in plan order; one stored dataset per key and position."""
        layers: dict[str, list[int | None]] = {}
        for site in self.sites:
            layers.setdefault(site.name, []).append(site.layer)
        return {name: tuple(found) for name, found in layers.items()}
