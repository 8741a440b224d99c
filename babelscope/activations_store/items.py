"""`items.h5`: which items a store is about, and every prompt as the model read it."""

import hashlib
import json
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from babelscope.activations_store.disk import hdf5_image
from babelscope.activations_store.hdf5 import fixed_strings, opened, put, read_checked
from babelscope.activations_store.manifest import SCHEMA
from babelscope.errors import BabelScopeError
from babelscope.schema import CapturePlan, Prompt, PromptSet

DATASETS = ("item", *(f"prompts/{n}" for n in ("item", "language", "text_sha256", "record", "record_splits")))


def items_image(plan: CapturePlan, prompts: PromptSet, *, texts: bool) -> memoryview:
    """Bytes of `items.h5`.

    Records are JSON packed one behind the other: HDF5 strings of variable length lie in a heap that no
    checksum covers, and those of fixed length take the room of the longest.

    Raises
    ------
    BabelScopeError
        If the prompts are not those that the plan was made for.
    """
    if plan.prompts_sha256 != prompts.digest():
        raise BabelScopeError("the plan was made for another set of prompts", "make the plan again from these prompts")
    number = {item: i for i, item in enumerate(plan.items)}
    records = [_record(p, texts=texts) for p in prompts.prompts]
    hashes = [hashlib.sha256(p.text.encode()).hexdigest() for p in prompts.prompts]

    def build(file: h5py.File) -> None:
        file.attrs.update({"schema": np.bytes_(SCHEMA), "plan_sha256": np.bytes_(plan.fingerprint)})
        put(file, "item", fixed_strings(plan.items))
        group = file.create_group("prompts")
        put(group, "item", np.array([number[p.item] for p in prompts.prompts], np.int32))
        put(group, "language", fixed_strings([p.language for p in prompts.prompts]))
        put(group, "text_sha256", fixed_strings(hashes))
        put(group, "record", np.frombuffer(b"".join(records), np.uint8))
        put(group, "record_splits", np.cumsum([0, *map(len, records)], dtype=np.int64))

    return hdf5_image(build)


def read_prompts(path: Path, plan: CapturePlan) -> tuple[Prompt, ...]:
    """Read the prompts of a store in their own order; without texts if these were left out.

    Raises
    ------
    BabelScopeError
        If the file is damaged or belongs to another plan.
    """
    with opened(path, plan) as file:
        return prompts_in(file)


def prompts_in(group: h5py.Group) -> tuple[Prompt, ...]:
    """Read the prompts from an open `items.h5`, or from its group in a packed file."""
    packed: NDArray[np.generic] = read_checked(group["prompts/record"])
    splits = read_checked(group["prompts/record_splits"]).tolist()
    data = packed.tobytes()
    return tuple(_prompt(data[a:b]) for a, b in pairwise(splits))


def copy_items(source: h5py.Group, target: h5py.Group) -> None:
    """Copy the datasets of `items.h5`, each checked against its sha256; ValueError for one that is damaged."""
    for name in DATASETS:
        put(target, name, read_checked(source[name]))


def _prompt(record: bytes) -> Prompt:
    prompt = Prompt.from_json(json.loads(record))
    texts = (prompt.item, prompt.language, prompt.text, prompt.answer, *prompt.letters, *prompt.options)
    if (
        not all(isinstance(text, str) for text in texts)
        or not isinstance(prompt.gold, int | None)
        or any(isinstance(value, list | dict) for value in prompt.covariates.values())
    ):
        raise TypeError("a field of a prompt has another type")
    return prompt


def _record(prompt: Prompt, *, texts: bool) -> bytes:
    record = prompt.to_json()
    if not texts:
        record |= {"text": "", "options": (), "answer": ""}
    return json.dumps(record, ensure_ascii=False).encode()
