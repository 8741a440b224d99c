"""What the forked processes do: write a store with the real writer, or with one that is broken on purpose."""

import ctypes
import os
import random
import resource
import stat
import sys
from dataclasses import replace
from pathlib import Path

from babelscope.activations_store import StoreWriter, writer
from babelscope.activations_store.disk import sync_folder
from babelscope.activations_store.shard import shard_image
from babelscope.errors import BabelScopeError
from babelscope.schema import Site
from tests.store.stores import ALL, LAST, make_block, make_plan, make_prompts

# Two kinds of sites, a row per item and a row per token, bfloat16, every kind of answer; an item that failed and a
# block whose laws were measured, which is one more file.
PROMPTS = make_prompts(5, ("en", "sw"))
PLAN = make_plan(
    PROMPTS, "bfloat16", (LAST, ALL), answers="texts", continuation=3,
    sites=(Site("resid.post", 0), Site("resid.post", 2), Site("attn.heads", 1)),
)  # fmt: skip
FAILED = {"sw": (2,)}
LAWS = ("en", 1)
# What a store holds that is to be overwritten.
OLD_PROMPTS = make_prompts(2, ("en", "sw"))
OLD_PLAN = make_plan(OLD_PROMPTS)
PROVENANCE = {"why": "crash"}


def the_block(language, index):
    block = make_block(PLAN, language, index, FAILED.get(language, ()))
    return replace(block, law_errors={"residual": 0.5}) if (language, index) == LAWS else block


def warm_up():
    shard_image(PLAN, the_block("en", 0))


def write(job, tell):
    """Create or continue the store until it is done, telling of all that is committed. Exit code as that of the CLI.

    `arm` is (number of the call to die before, False) or (of the write to die in the middle of, True), or 0 to count
    them; `record` a file to record calls in; `limit` the size of the largest file that can be written; `shuffled` a
    seed of the order of blocks, for writers that share a store; `broken` one of `BROKEN`.
    """
    path = Path(job["store"])
    BROKEN[job.get("broken", "")]()
    shim = ctypes.CDLL(None)
    if "limit" in job:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["limit"], resource.RLIM_INFINITY))
    if "arm" in job or "record" in job:
        log = os.open(job["record"], os.O_WRONLY | os.O_CREAT | os.O_APPEND) if "record" in job else -1
        at, half = job.get("arm", (0, False))
        shim.rig_arm(str(path.parent).encode(), ctypes.c_long(at), int(half), log)

    def committed(what):
        tell(what)
        if "record" in job:
            shim.rig_mark(what.encode())

    try:
        _fill(path, committed, random.Random(job["shuffled"]) if "shuffled" in job else None)
    except BabelScopeError as error:
        tell(f"error {error.problem} | {error.hint}")
        return error.exit_code
    if "arm" in job:
        tell(f"calls {shim.rig_count()}")
    return 0


def _fill(path, committed, shuffled):
    with _opened(path, shuffled) as writer:
        committed("store")
        pending = writer.pending()
        if shuffled:
            shuffled.shuffle(pending)
        for language, index in pending:
            writer.put(the_block(language, index))
            committed(f"shard {language} {index}")


def _opened(path, shuffled):
    if shuffled:
        return StoreWriter.join(path, PLAN, PROMPTS, PROVENANCE)
    try:
        return StoreWriter.resume(path, PLAN, PROMPTS)
    except BabelScopeError as error:
        if "another plan" not in error.problem and "is no BabelScope store" not in error.problem:
            raise
    return StoreWriter.create(path, PLAN, PROMPTS, PROVENANCE, overwrite=True)


def run_cli(job, _):
    """The command line, in a folder, with a size limit on files if there is one."""
    from babelscope.cli.main import main

    os.chdir(job["folder"])
    if "limit" in job:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["limit"], resource.RLIM_INFINITY))
    sys.argv = ["babelscope", *job["arguments"]]
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    except KeyboardInterrupt:  # while the command was already ending
        return 130
    return 0


def _without_fsync_of(kind):
    def breaks():
        real = os.fsync
        os.fsync = lambda handle: None if kind(os.fstat(handle).st_mode) else real(handle)

    return breaks


def _without_temporary_name():
    def straight(path, data):
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
        except FileExistsError:
            return False
        os.write(handle, data)
        os.fsync(handle)
        os.close(handle)
        sync_folder(path.parent)
        return True

    writer.publish = straight


BROKEN = {
    "": lambda: None,
    "no fsync": _without_fsync_of(stat.S_ISREG),
    "no folder fsync": _without_fsync_of(stat.S_ISDIR),
    "no temporary name": _without_temporary_name,
}
