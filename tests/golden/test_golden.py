"""Stores of every promised schema give the numbers that were written, to a plain reader and to this version."""

import json
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

import babelscope as bs
from babelscope.activations_store import ActivationStore, StoreWriter
from babelscope.activations_store.hdf5 import digest
from babelscope.activations_store.manifest import SCHEMA
from babelscope.activations_store.packing import pack
from babelscope.activations_store.shard import group_name
from tests.golden import plain, write

HERE = Path(__file__).parent
PINS = {path.parent: json.loads(path.read_text("utf-8")) for path in sorted(HERE.glob("*/values.json"))}
STORES = [folder / f"{name}.acts" for folder, pins in PINS.items() for name in pins]
every_store = pytest.mark.parametrize("path", STORES, ids=lambda p: f"{p.parent.name}-{p.stem}")


def pins_of(path):
    return PINS[path.parent][path.stem]


def read_by_us(path):
    """(language, group) -> (layer, row, *unit), as the plain reader gives it."""
    store = bs.open(path)
    found = {}
    for site in store.sites:
        for position in store.plan.positions:
            for language in store.languages:
                layers = []
                for name in (s for s in store.plan.sites if s.name == site):
                    selection = store.select(str(name), languages=language, position=str(position))
                    rows = np.concatenate(selection.ragged()[0]) if position.ragged else selection.numpy()[0]
                    layers.append(rows.astype(np.float32))
                found[language, group_name(site, position)] = np.stack(layers)
    return found


def test_the_schema_of_this_version_has_golden_stores():
    assert HERE / SCHEMA.rpartition("/")[2] in PINS
    assert sum(p.stat().st_size for folder in PINS for p in folder.rglob("*") if p.is_file()) < 400_000 * len(PINS)


def test_the_plain_reader_knows_nothing_of_us():
    assert not re.search(r"^\s*(from|import) babelscope", Path(plain.__file__).read_text("utf-8"), re.MULTILINE)


@every_store
def test_a_reader_that_follows_the_document_alone_finds_the_pinned_numbers(path):
    _, found = plain.read_store(path)
    assert {f"{language} {group}": plain.digest(values) for (language, group), values in found.items()} == pins_of(path)


@every_store
def test_this_version_finds_the_pinned_numbers(path):
    found = read_by_us(path)
    assert {f"{language} {group}": plain.digest(values) for (language, group), values in found.items()} == pins_of(path)
    store = bs.open(path)
    assert store.prompts.items == store.items
    assert len(store.answers) + len(store.failed) == store.progress[0] * store.plan.block_items
    assert "golden" in repr(store)


@pytest.mark.parametrize("path", [f for h in PINS for f in sorted(h.glob("*.h5"))], ids=lambda p: p.name)
def test_packed_files_have_the_pinned_numbers(path):
    _, found = plain.read_packed(path)
    for numbers in (found, read_by_us(path)):
        digests = {f"{language} {group}": plain.digest(values) for (language, group), values in numbers.items()}
        assert digests == pins_of(path)
    assert bs.open(path).verify(full=True).findings == ()


@every_store
def test_every_store_reads_the_same_packed(path, tmp_path):
    pack(ActivationStore.open(path), tmp_path / "s.h5", partial=True)
    _, found = plain.read_packed(tmp_path / "s.h5")
    assert {f"{language} {group}": plain.digest(values) for (language, group), values in found.items()} == pins_of(path)


@every_store
def test_verify_finds_nothing(path):
    assert bs.open(path).verify(full=True).findings == ()


@pytest.mark.parametrize("name", ["float32", "float16", "float16-clipped", "bfloat16", "int8"])
@pytest.mark.parametrize(("beside", "factor", "more"), [("absmax", 0.9, 0), ("absmax", 1.1, 0), ("nonfinite", 1, 1)])
def test_verify_finds_an_absmax_or_nonfinite_of_other_values(name, beside, factor, more, tmp_path):
    path = shutil.copytree(HERE / "1.0" / f"{name}.acts", tmp_path / "s.acts")
    shard = next(path.glob("shards/l-en/*.h5"))
    shard.chmod(0o644)
    with h5py.File(shard, "r+") as file:
        dataset = file["resid.post.last"][beside]
        first = dataset[0, 0]
        dataset[0, 0] = first * factor + more
        dataset.attrs["sha256"] = np.bytes_(digest(dataset[()]))
    problems = [finding.problem for finding in bs.open(path).verify(full=True).findings]
    assert problems == [f"resid.post.last/{beside} is not that of the values"]


def test_answers_failures_and_marks_are_those_that_were_written():
    folder = HERE / "1.0"
    answers = bs.open(folder / "answers.acts").answers
    assert list(answers["continuation"]) == [f"ja, {i} är så" for i in range(4)]
    assert list(answers["score_0"]) == [write.number(i, 1) for i in range(4)]
    assert list(answers["text_score_1"]) == [write.number(i, 2) - 1 for i in range(4)]
    failed = bs.open(folder / "float32.acts").failed
    assert failed.to_dict("records") == [{"item": "item/1", "language": "sw", "reason": "no token of the segment"}]
    marks = {name: bs.open(folder / f"{name}.acts").marked["status"].tolist() for name in PINS[folder]}
    assert {name: found for name, found in marks.items() if found} == {
        "bfloat16": ["non-finite"], "int8": ["non-finite"], "encoder-decoder": ["non-finite"],
        "float16-clipped": ["clipped"],
    }  # fmt: skip
    assert bs.open(folder / "partial.acts").progress == (1, 2)


def test_the_script_writes_the_pinned_numbers_again(tmp_path):
    here = write.write(tmp_path)
    assert json.loads((here / "values.json").read_text("utf-8")) == PINS[HERE / here.name]
    for packed in HERE.glob(f"{here.name}/*.h5"):
        assert plain.read_packed(here / packed.name)[0] == plain.read_packed(packed)[0]


def test_a_golden_store_is_continued_by_this_version(tmp_path):
    for folder in PINS:
        path = shutil.copytree(folder / "partial.acts", tmp_path / folder.name)
        plan = bs.open(path).plan
        with StoreWriter.resume(path, plan) as writer:
            assert writer.quarantined == ()
            for language, index in writer.pending():
                writer.put(write.block_of(plan, language, index))
        assert bs.open(path).progress == (2, 2)
        plain.read_store(path)
