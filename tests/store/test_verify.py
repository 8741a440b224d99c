"""Nothing that changes in a store passes `verify`, and `repair` moves what is damaged and nothing else."""

import faulthandler
import json
import os
import re
import shutil
import subprocess

import h5py
import numpy as np
import pytest

from babelscope.activations_store import ActivationStore, StoreWriter, shard, untrusted
from babelscope.activations_store.hdf5 import digest
from babelscope.activations_store.sums import NAME, covered, read_sums, write_sums
from babelscope.activations_store.verification import verify
from babelscope.errors import BabelScopeError
from babelscope.schema import Site
from babelscope.workflows import repair
from babelscope.workflows import verification as verification_verbs
from babelscope.workflows import verify as verb
from tests.store.stores import ALL, LAST, fill, make_block, make_plan, make_prompts

FLIPS = int(os.environ.get("BABELSCOPE_FLIPS", "200"))  # 2,000 in `make torture`
EN, SW = "shards/l-en/000000000-000000002.h5", "shards/l-sw/000000000-000000002.h5"
HANGS_S = 60


@pytest.fixture
def store(tmp_path):
    """Two languages, two blocks, and digests of all files."""
    prompts = make_prompts(4)
    path = fill(
        tmp_path / "s.acts", make_plan(prompts, "bfloat16", positions=(LAST, ALL)), prompts, failed={"en": (1,)}
    ).path
    write_sums(path)
    return path


def replace(file, data):
    file.unlink()  # read-only, as a published file is
    file.write_bytes(data)


def files_of(path):
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def found(path, **options):
    return [(finding.file, finding.problem) for finding in verify(path, **options).findings]


def test_a_store_as_it_was_written_has_no_finding(store):
    seen = []
    for full in (False, True):
        done = verify(store, full=full, progress=lambda *about: seen.append(about))
        assert done
        assert done.findings == ()
        assert done.files == 9  # store.json, items.h5, four shards, two records of the run, SHA256SUMS
    assert seen[:9] == seen[9:]
    assert [number for number, _, _ in seen[:9]] == list(range(9))
    assert ActivationStore.open(store).verify(full=True).files == 9


def test_sums_are_those_of_sha256sum(store):
    done = subprocess.run(["sha256sum", "--strict", "-c", NAME], cwd=store, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(line.removesuffix(": OK") for line in done.stdout.splitlines()) == covered(store)
    assert len(covered(store)) == 8


def test_missing_sums_are_written_by_a_full_verification_alone(store):
    want = (store / NAME).read_bytes()
    (store / NAME).unlink()
    for options in ({}, {"full": True, "untrusted": True}):
        assert verb(store, **options)
        assert not (store / NAME).exists()
    assert verb(store, full=True)
    assert (store / NAME).read_bytes() == want


def test_sums_are_never_made_to_fit_a_damaged_file(store):
    said, _ = read_sums(store)
    at = store / EN
    replace(at, at.read_bytes()[:-1] + b"?")
    (store / "runs/later.json").write_text("{}")
    write_sums(store)
    now, _ = read_sums(store)
    assert now.pop("runs/later.json")
    assert now == said


def flips(path, names, count, seed):
    """A flipped bit in each of the files in turn, at a random place; undone afterwards."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        file = path / names[number % len(names)]
        good = file.read_bytes()
        at, bit = int(rng.integers(len(good))), int(rng.integers(8))
        replace(file, good[:at] + bytes([good[at] ^ 1 << bit]) + good[at + 1 :])
        faulthandler.dump_traceback_later(HANGS_S, exit=True)
        yield file.relative_to(path).as_posix(), at, bit
        faulthandler.cancel_dump_traceback_later()
        replace(file, good)


def small_store(tmp_path):
    prompts = make_prompts(2, ("en",))
    sites = (Site("resid.post", 0), Site("resid.post", 2))
    plan = make_plan(prompts, "bfloat16", positions=(LAST, ALL), sites=sites)
    return fill(tmp_path / "small.acts", plan, prompts, failed={"en": (1,)}).path


def test_one_flipped_bit_anywhere_is_found(tmp_path):
    path = small_store(tmp_path)
    write_sums(path)
    names = list(files_of(path))
    assert len(names) == 6
    missed = [flip for flip in flips(path, names, FLIPS, seed=0) if verify(path, full=True)]
    assert missed == []


def everything(path):
    """Every value and attribute of a file, but for which scale an axis belongs to."""
    with h5py.File(path, "r") as file:
        things = ["/"]
        file.visit(things.append)
        return {
            (name, key): np.asarray(value).tobytes()
            for name in things
            for key, value in [
                *((k, file[name].attrs[k]) for k in file[name].attrs if k not in ("DIMENSION_LIST", "REFERENCE_LIST")),
                ("", file[name][()] if isinstance(file[name], h5py.Dataset) else 0),
            ]
        }


def test_without_sums_a_flipped_bit_that_is_not_found_changed_no_number(tmp_path):
    path = small_store(tmp_path)
    names = [EN, "items.h5"]
    want = {name: everything(path / name) for name in names}
    passed = 0
    for name, at, bit in flips(path, names, FLIPS // 2, seed=1):
        if verify(path, full=True):
            passed += 1
            assert everything(path / name) == want[name], (name, at, bit)
    assert passed < FLIPS / 4  # padding


def changed_shard(path, change):
    """Write the first English shard anew, after `change` of the open file, with a whole file as the result."""
    data = (path / EN).read_bytes()
    replace(path / EN, data)
    with h5py.File(path / EN, "r+") as file:
        change(file)


def put(file, name, values):
    file[name][...] = values
    file[name].attrs["sha256"] = np.bytes_(digest(file[name][()]))


def drop(file, name):
    del file[name]


def other(file, name, values):
    del file[name]
    file[name] = values


@pytest.mark.parametrize(
    ("change", "problem", "full"),
    [
        (lambda f: drop(f, "answers/scores"), "answers/scores is missing", False),
        (lambda f: drop(f, "embed.last"), "embed.last/layer is missing", False),
        (lambda f: other(f, "rows/n_tokens", [1.5]), "n_tokens is float64", False),
        (lambda f: other(f, "embed.last/absmax", np.zeros((2, 1), "f4")), r"absmax has shape \(2, 1\)", False),
        (lambda f: f.attrs.update(item_to=3), "item_from and item_to", False),
        (lambda f: put(f, "rows/item", [1]), "its items are not those", False),
        (lambda f: put(f, "embed.last/item", [1]), "differs from rows/item", False),
        (lambda f: put(f, "resid.post.last/layer", [2, 0]), "layer is not what the plan says", False),
        (lambda f: put(f, "embed.all/row_splits", [1, 1]), "row_splits does not divide", False),
        (lambda f: f["embed.last/value"].attrs.update(site=np.bytes_("mlp.act")), "says that it is mlp.act", False),
        (lambda f: put(f, "embed.last/absmax", 0), "absmax is not that of the values", True),
        (lambda f: put(f, "embed.last/nonfinite", 1), "nonfinite is not that of the values", True),
        (lambda f: f["answers/scores"].__setitem__(..., 0), "answers/scores does not match its sha256", True),
        (lambda f: f["embed.last/value"].attrs.__delitem__("sha256"), "damaged", True),
    ],
)  # fmt: skip
def test_each_thing_that_can_be_wrong_in_a_shard_is_told(store, change, problem, full):
    changed_shard(store, change)
    if full:
        assert found(store) == []
    told = [finding for finding in verify(store, full=full).findings if finding.file == EN]
    assert all(finding.damaged for finding in told)
    assert re.search(problem, told[0].problem), told


def test_a_foreign_shard_swapped_in_is_refused(store, tmp_path):
    prompts = make_prompts(4)
    other = fill(tmp_path / "o.acts", make_plan(prompts, "bfloat16", positions=(LAST, ALL), token_budget=65), prompts)
    for source in (other.path / EN, store / SW):
        good = (store / EN).read_bytes()
        replace(store / EN, source.read_bytes())
        assert found(store) == [(EN, "belongs to another capture plan, language or block")]
        with pytest.raises(BabelScopeError, match="belongs to another"):
            ActivationStore.open(store).answers  # noqa: B018
        replace(store / EN, good)


def test_rows_of_another_width_are_told_across_shards(store, monkeypatch):
    plan = ActivationStore.open(store).plan
    block = make_block(plan, "en", 0, (1,))
    for rows in [rows for (site, _), rows in block.rows.items() if site == "embed"]:
        object.__setattr__(rows, "values", np.concatenate([rows.values, rows.values], axis=-1))
    replace(store / EN, shard.shard_image(plan, block))
    told = [f"rows of embed.{position} have shape (12,), in most shards (6,)" for position in ("last", "all")]
    assert found(store) == [(EN, problem) for problem in told]


@pytest.mark.parametrize("full", [False, True])
def test_files_that_lack_or_do_not_belong_are_told(store, full):
    shutil.copy(store / EN, store / "shards/l-en/000000000-000000003.h5")
    replace(store / SW, (store / SW).read_bytes()[:-5])
    (store / "items.h5").unlink()
    told = dict(found(store, full=full))
    assert told.pop("items.h5").endswith("is missing")
    assert "truncated file" in told.pop(SW)
    assert told.pop("shards/l-en/000000000-000000003.h5") == "is no shard of this plan"
    assert told == ({NAME: "names items.h5, which is missing"} if full else {})


def test_prompts_of_another_set_are_told(store, tmp_path):
    prompts = make_prompts(4)
    plan = ActivationStore.open(store).plan
    other = make_prompts(4, ("en", "de"))
    items = fill(tmp_path / "o.acts", make_plan(other), other).path / "items.h5"
    with h5py.File(items) as file, h5py.File(tmp_path / "items.h5", "w", libver=("v108", "v108")) as made:
        for name in file:
            file.copy(name, made)
        made.attrs.update({"schema": file.attrs["schema"], "plan_sha256": np.bytes_(plan.fingerprint)})
    replace(store / "items.h5", (tmp_path / "items.h5").read_bytes())
    assert (
        "it has prompts of items or languages that the plan does not have" in dict(found(store, full=True))["items.h5"]
    )
    assert prompts.digest() == plan.prompts_sha256


def test_a_store_still_being_captured_has_no_finding(tmp_path):
    prompts = make_prompts(4)
    plan = make_plan(prompts)
    with StoreWriter.create(tmp_path / "s.acts", plan, prompts, {}) as writer:
        writer.put(make_block(plan, *writer.pending()[0]))
        assert verify(tmp_path / "s.acts", full=True)
        writer.seal()
        assert not (tmp_path / "s.acts" / NAME).exists()


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """Makes Python code run in every child when it opens a file of a name."""

    def set_trap(name, code):
        folder = tmp_path / "trap"
        folder.mkdir()
        hook = f"import sys\ndef trap(event, args):\n    if event == 'open' and str(args[0]).endswith({name!r}):\n"
        (folder / "sitecustomize.py").write_text(hook + f"        {code}\nsys.addaudithook(trap)\n")
        monkeypatch.setenv("PYTHONPATH", str(folder))

    return set_trap


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import ctypes; ctypes.string_at(0)", r"reading it crashed the HDF5 library (SIGSEGV)"),
        ("while True: pass", "reading it took more processor time than any file of a store needs"),
        ("held = bytearray(5 << 30)", "cannot be read in the memory that there is"),
        ("import os; os._exit(3)", "reading it ended the process (exit code 3)"),
    ],
    ids=["segfault", "hang", "memory", "exit"],
)
def test_verify_untrusted_survives(store, trap, monkeypatch, code, reason):
    monkeypatch.setattr(untrusted, "CPU_S", 3)
    changed_shard(store, lambda file: put(file, "embed.last/absmax", 0))
    (store / NAME).unlink()
    trap(SW, code)
    done = verb(store, full=True, untrusted=True)
    told = {finding.file: finding.problem for finding in done.findings}
    # What stands before and behind the deadly file is found as well.
    assert told == {SW: reason, EN: "embed.last/absmax is not that of the values"}
    assert done.files == 9


def test_what_reads_an_untrusted_store_can_write_no_byte(store, trap):
    left = store.parent / "left"
    trap(SW, f"open({str(left)!r}, 'wb', 0).write(b'x')")
    verb(store, untrusted=True)
    assert left.stat().st_size == 0


def test_verify_untrusted_finds_what_verify_finds(store):
    assert verb(store, full=True, untrusted=True).to_json() == verb(store, full=True).to_json()
    replace(store / EN, b"no HDF5")
    assert verb(store, untrusted=True).to_json() == verb(store).to_json()
    with pytest.raises(BabelScopeError, match="no BabelScope store"):
        verb(store.parent, untrusted=True)


def test_repair_moves_what_is_damaged_and_a_resumed_capture_restores_it(store):
    whole, prompts = files_of(store), make_prompts(4)
    plan = ActivationStore.open(store).plan
    for name in (EN, "items.h5"):
        data = bytearray(whole[name])
        data[len(data) // 2] ^= 1
        replace(store / name, bytes(data))
    damaged = files_of(store)
    planned = repair(store, dry_run=True)
    assert set(planned.moved) == {EN, "items.h5"}
    assert files_of(store) == damaged
    done = repair(store)
    assert set(done.moved) == {EN, "items.h5"}
    assert done.left == ()
    for name, place in done.moved.items():
        assert (store / place).read_bytes() == damaged[name]
        note = json.loads((store / place).with_suffix(".json").read_text())
        assert note["file"] == name
        assert note["reasons"]
    assert verify(store).findings[0].problem.endswith("is missing")
    with StoreWriter.resume(store, plan, prompts) as writer:
        assert writer.pending() == [("en", 0)]
        writer.put(make_block(plan, "en", 0, (1,)))
    writer.seal()
    assert verify(store, full=True).findings == ()
    now = files_of(store)
    assert all(now[name] == data for name, data in whole.items() if name != NAME)


def test_repair_touches_no_good_file(store):
    lines = (store / NAME).read_text()
    replace(store / NAME, lines.replace(read_sums(store)[0][EN], "0" * 64).encode())
    (store / "shards/l-en/notes.txt").write_text("mine")
    before = files_of(store)
    done = repair(store)
    assert done.moved == {}
    assert [finding.file for finding in done.left] == [EN, "shards/l-en/notes.txt"]
    assert files_of(store) == before


def moved_away(store, _):
    (store / "quarantine").mkdir()
    (store / EN).rename(store / "quarantine/en.h5")


def moved_away_and_captured_again(store, whole):
    moved_away(store, whole)
    (store / EN).write_bytes(whole)


def removed_and_captured_again(store, whole):
    replace(store / EN, whole)  # many file systems give the new file the inode of the old one


@pytest.mark.parametrize("meanwhile", [moved_away, moved_away_and_captured_again, removed_and_captured_again])
def test_repair_leaves_what_another_process_has_put_in_place_of_a_damaged_file(store, meanwhile):
    whole = (store / EN).read_bytes()
    replace(store / EN, whole[:-1] + bytes([whole[-1] ^ 1]))
    expected = []

    def progress(_, __, what):
        if what == f"verify {NAME}":  # the last file: the damage has been seen
            meanwhile(store, whole)
            expected.append(files_of(store))

    done = repair(store, progress=progress)
    assert done.moved == {}
    assert EN not in {finding.file for finding in done.left}
    assert [files_of(store)] == expected


def test_repair_leaves_a_damaged_file_that_was_not_there_when_it_began(store, monkeypatch):
    honest = verification_verbs.verify_apart
    (store / EN).rename(store.parent / "late.h5")

    def begun(path, **options):
        (store / EN).write_bytes(b"not yet whole")
        return honest(path, **options)

    monkeypatch.setattr(verification_verbs, "verify_apart", begun)
    assert repair(store).moved == {}
    assert (store / EN).read_bytes() == b"not yet whole"
    assert not (store / "quarantine").exists()
