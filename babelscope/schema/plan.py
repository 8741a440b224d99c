"""A capture plan: which model reads which prompts, and what is kept. Its hash is the identity of a store."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from babelscope.schema.position import Position
from babelscope.schema.site import Site, SiteKind

# What the decoder of an encoder-decoder reads while the encoder reads the prompt.
DECODER_POLICIES = {
    "start": "the token that starts a decoder",
    "language": "that token and the one that names the language of the prompt (NLLB, M2M100, mBART)",
    "copy": "the prompt again, behind the token that starts a decoder",
}

# How prompts that have options are answered.
ANSWERS = {
    "none": "not at all",
    "labels": "log-probability of each option's label as next token",
    "texts": "that, and the log-probability of each option's text as continuation of the prompt",
}


# What every captured row of attention is reduced to; the mass on each segment of the prompts follows.
ROW_SUMMARIES = ("entropy_nats", "first_token", "mean_distance")

# What happens where a finite value does not fit the stored dtype.
ON_OVERFLOW = {
    "stop": "the capture stops and names the value",
    "clip": "the largest finite value of that dtype is stored, and the row is marked",
}

# Ways to compute less for the rows of last tokens. They round differently, so they belong to the identity.
LEVERS = {
    "unmasked": "causal models read right-padded batches without a mask",
    "pruned": "the last block that is run computes the last token of each prompt alone",
    "prefixes": "what the prompts of a block share at their start is run once",
}


# Fields that came after stores were written: left out where they have their default, so that plans that say the same
# have one fingerprint in all versions.
_LATER = ("source_tokens", "on_overflow", "pass_cost", "pooled", "even", "spellings")

# Tokens that could be run in the time that one more forward pass costs: measured 15-60 on two CPU cores.
PASS_COST = 48


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model as it was loaded: where from, and a hash of what was loaded.

    `source` and `adapter` say how the user named them (path or hub id) and are provenance; the hashes are identity.
    `weights_sha256` is that of the model without its adapter, merged or not. `n_layers` counts the blocks; in
    encoder-decoders those of the decoder, beside `n_encoder_layers`. `chat_template_sha256` is "" where prompts are
    read as they stand, `anatomy_sha256` that of the file that names parts, where there is one.
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
    anatomy_sha256: str = ""
    adapter: str = ""
    adapter_sha256: str = ""
    adapter_merged: bool = False
    quantization: str = ""
    chat_template_sha256: str = ""

    @property
    def nameless(self) -> "ModelRef":
        """The same without the names that the user gave."""
        return replace(self, source="", adapter="")

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
    answers : str
        What is kept for items that have options: "labels", "texts" (a key of `ANSWERS`), or "" for nothing.
    backend : str
    block_items : int
        Items per shard.
    token_budget : int
        Most tokens (padding included) in one forward batch.
    dtype : str
        Stored dtype: "float32", "float16", "bfloat16", or "int8" with a scale for each layer and unit of a shard.
    decoder : str
        What the decoder of an encoder-decoder reads, a key of `DECODER_POLICIES`; "" in other models.
    continuation : int
        Most tokens that the model continues each prompt by; 0 for none.
    n_keys : int
        Extent of the axis `key`, the longest prompt in tokens; 0 where no site has that axis.
    segments : tuple of str
        Segment names of all prompts, sorted; empty where no site has the axis `summary`.
    levers : tuple of str
        Keys of `LEVERS`; a backend leaves out those that change the numbers of its model.
    source_tokens : tuple of str
        The token that names each of `languages` to the encoder (NLLB, M2M100, mBART); empty where nothing does.
    on_overflow : str
        A key of `ON_OVERFLOW`.
    pass_cost : int
        Tokens that could be run in the time that one more forward pass costs: batches are cut where that saves more
        padding. Small on a CPU, large where launching a pass is what takes the time.
    pooled : int
        Number of consecutive blocks whose prompts share forward batches.
    even : bool
        Whether sites with the axis `summary` hold the summaries of even attention as well.
    spellings : bool
        Whether labels are scored in each of their spellings as well.
    """

    model: ModelRef
    prompts_sha256: str
    languages: tuple[str, ...]
    items: tuple[str, ...]
    sites: tuple[Site, ...]
    positions: tuple[Position, ...]
    answers: str
    backend: str
    block_items: int
    token_budget: int
    dtype: str
    decoder: str = ""
    continuation: int = 0
    n_keys: int = 0
    segments: tuple[str, ...] = ()
    levers: tuple[str, ...] = ()
    source_tokens: tuple[str, ...] = ()
    on_overflow: str = "stop"
    pass_cost: int = PASS_COST
    pooled: int = 1
    even: bool = False
    spellings: bool = False
    _sha256: str = field(default="", init=False, compare=False, repr=False)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values; `from_json` is the inverse."""
        record = asdict(self)
        del record["_sha256"]
        record["sites"] = [str(s) for s in self.sites]
        record["positions"] = [str(p) for p in self.positions]
        for name in _LATER:
            if getattr(self, name) == CapturePlan.__dataclass_fields__[name].default:
                del record[name]
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "CapturePlan":
        """Rebuild a plan from `to_json`, also that of another version.

        Fields that are absent get their defaults, and those that are not known are left out. The fingerprint is that
        of the record as it stands, so that what was captured under it stays its own.
        """
        values = _known(cls, record)
        values["model"] = ModelRef(**_known(ModelRef, record["model"]))
        values["sites"] = tuple(Site.parse(s) for s in values["sites"])
        values["positions"] = tuple(Position.parse(p) for p in values["positions"])
        for name in ("languages", "items", "segments", "levers", "source_tokens"):
            values[name] = tuple(values.get(name, ()))
        plan = cls(**values)
        object.__setattr__(plan, "_sha256", _digest(_nameless(record)))
        return plan

    @staticmethod
    def unknown_fields(record: Mapping[str, Any]) -> tuple[str, ...]:
        """Fields of a record that `from_json` leaves out, as `plan.name` or `plan.model.name`."""
        model = record["model"]
        return (
            *(f"plan.{name}" for name in sorted(record.keys() - _known(CapturePlan, record).keys())),
            *(f"plan.model.{name}" for name in sorted(model.keys() - _known(ModelRef, model).keys())),
        )

    def identity(self) -> dict[str, Any]:
        """The fields that decide the captured numbers. Two runs with equal identity may share a store."""
        return _nameless(self.to_json())

    @property
    def fingerprint(self) -> str:
        """Hex sha256 of the canonical JSON of `identity`, or of what was read if the plan comes from a file."""
        if not self._sha256:  # asked for at every shard that is opened
            object.__setattr__(self, "_sha256", _digest(self.identity()))
        return self._sha256

    @property
    def row_dtype(self) -> str:
        """Dtype of the rows that a backend yields: float32 where the store narrows them and marks what it changed."""
        return "float32" if self.dtype == "int8" or self.on_overflow == "clip" else self.dtype

    @property
    def lossy(self) -> bool:
        """Whether the stored dtype holds less than that of the model."""
        exact = {"float16": ("float16", "float32"), "bfloat16": ("bfloat16", "float32")}
        return self.dtype not in exact.get(self.model.dtype, ("float32",))

    @property
    def answered(self) -> bool:
        """Whether anything is kept of what the model says."""
        return bool(self.answers or self.continuation)

    @property
    def summaries(self) -> tuple[str, ...]:
        """Names along the axis `summary`: entropy, mass on the first token, mean distance, mass on each segment.

        Behind them those of attention spread evenly over the keys that the token sees, as `even:segment:question`.
        """
        own = (*ROW_SUMMARIES, *(f"segment:{name}" for name in self.segments))
        return (*own, *(f"even:{name}" for name in own)) if self.even else own

    def extents(self, site: Site | SiteKind) -> tuple[int, ...]:
        """Extents of those axes of a site that depend on the prompts; they stand behind those of the model."""
        known = {"key": self.n_keys, "summary": len(self.summaries)}
        return tuple(known[axis] for axis in site.axes if axis in known)

    @property
    def n_blocks(self) -> int:
        """Blocks of items per language."""
        return -(-len(self.items) // self.block_items)

    @property
    def blocks(self) -> tuple[tuple[str, int], ...]:
        """Every (language, block) of the store, in row order."""
        return tuple((language, index) for language in self.languages for index in range(self.n_blocks))

    @property
    def pools(self) -> tuple[tuple[tuple[str, int], ...], ...]:
        """The blocks, in row order, by those whose prompts share forward batches."""
        blocks = self.blocks
        return tuple(blocks[i : i + self.pooled] for i in range(0, len(blocks), self.pooled))

    def block(self, index: int) -> range:
        """Item indices of one block."""
        return range(index * self.block_items, min((index + 1) * self.block_items, len(self.items)))

    def site_layers(self) -> dict[str, tuple[int | None, ...]]:
        """Site name -> its layers in plan order; one stored dataset per key and position."""
        layers: dict[str, list[int | None]] = {}
        for site in self.sites:
            layers.setdefault(site.name, []).append(site.layer)
        return {name: tuple(found) for name, found in layers.items()}


def _known(kind: type[ModelRef] | type[CapturePlan], record: Mapping[str, Any]) -> dict[str, Any]:
    names = {f.name for f in fields(kind) if f.init}
    return {name: value for name, value in record.items() if name in names}


def _nameless(record: Mapping[str, Any]) -> dict[str, Any]:
    """A plan as JSON gives it back, without the names that the user gave to the model."""
    found: dict[str, Any] = json.loads(json.dumps(record))
    for name in ("source", "adapter"):
        found["model"].pop(name, None)
    return found


def _digest(identity: Mapping[str, Any]) -> str:
    text = json.dumps(identity, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
