"""What a file of a store may consist of, and that nothing else is ever followed, run or waited for."""

import ctypes
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from h5py import h5p, h5s, h5t

from babelscope.activations_store import ActivationStore, StoreWriter, guard
from babelscope.activations_store.verification import verify
from babelscope.errors import BabelScopeError
from babelscope.schema import Site
from tests.store.stores import ALL, DTYPES, LAST, WORDS, fill, make_plan, make_prompts, shards_of

ROOT = Path(__file__).parents[2]
SHARD = "shards/l-en/000000000-000000002.h5"
# A filter that HDF5 knows by number alone, and would look for among plugins.
FILTER = 305


@pytest.fixture
def store(tmp_path):
    prompts = make_prompts(2, ("en",))
    return fill(tmp_path / "s.acts", make_plan(prompts), prompts).path


def external_raw(file, target):
    file.create_dataset("x", (4,), "u1", external=[(str(target), 0, 4)])


def external_link(file, target):
    file["x"] = h5py.ExternalLink(str(target), "secret")


def soft_link(file, _):
    file["x"] = h5py.SoftLink("/y")


def vds(file, target):
    layout = h5py.VirtualLayout((4,), "u1")
    layout[:] = h5py.VirtualSource(str(target), "secret", (4,))
    file.create_virtual_dataset("x", layout)


def cycle(file, _):
    file.create_group("a")["b"] = file["/"]


def two_names(file, _):
    file["x"] = np.zeros(3)
    file["y"] = file["x"]


def deep(file, _):
    file.create_group("/".join("a" * 10))


def bad_name(file, _):
    file["..evil"] = 1


def line_in_a_name(file, _):
    file["a\n<script>"] = 1


def name_of_no_text(file, _):
    file.id.links.create_hard(b"\xff", h5py.Group(file.create_group("a").id).id, b".")


def unknown_filter(file, _):
    asks_for_a_plugin(file)


def lzf(file, _):
    file.create_dataset("x", data=np.zeros(100), compression="lzf")


def compound(file, _):
    file["x"] = np.zeros(4, [("a", "f4")])


def strings_in_a_heap(file, _):
    file["x"] = "text"


def references(file, _):
    file["x"] = np.array([file.ref], h5py.ref_dtype)


def named_type(file, _):
    file["x"] = np.dtype("f4")


def huge_shape(file, _):
    file.create_dataset("x", (2**50,), "f8", chunks=(1024,))


def zip_bomb(file, _):
    file.create_dataset("x", data=np.zeros(2**22), chunks=(2**20,), compression="gzip")


def huge_chunk(file, _):
    file.create_dataset("x", (2**29,), "u1", chunks=(2**29,))


def huge_attr(file, _):
    file.attrs["x"] = np.zeros(2**18)


def many_attrs(file, _):
    for i in range(201):
        file.attrs[str(i)] = 1


REFUSED = {
    external_raw: "stored in another file", external_link: "an external link", soft_link: "a soft link",
    vds: "virtual dataset", cycle: "two names", two_names: "two names", deep: "deeper than 8", bad_name: "no name",
    line_in_a_name: "no name", name_of_no_text: "no name", unknown_filter: "filter 305", lzf: "filter 32000",
    compound: "a type other than", strings_in_a_heap: "a type other than", references: "a type other than",
    named_type: "named datatype", huge_shape: "declares 9007199254740992 bytes", zip_bomb: "declares 33554432 bytes",
    huge_chunk: "chunks of 536870912", huge_attr: "attribute of 2097152", many_attrs: "has 2.. attributes",
}  # fmt: skip


def asks_for_a_plugin(file):
    """A dataset `x` that cannot be read without the filter 305, which is not asked for to write it."""
    options = h5p.create(h5p.DATASET_CREATE)
    options.set_chunk((4,))
    options.set_filter(FILTER, h5py.h5z.FLAG_OPTIONAL, ())
    made = h5py.h5d.create(file.id, b"x", h5t.STD_U8LE, h5s.create_simple((4,)), options)
    made.write_direct_chunk((0,), b"1234", 0)


def hostile(path, build, target=None):
    """A file with the right owner at `path`, made hostile by `build`."""
    with h5py.File(path, "r") as good:
        owner = dict(good.attrs)
    path.unlink()
    with h5py.File(path, "w", libver=("v108", "latest")) as file:
        file.attrs.update(owner)
        build(file, target)


def read(path):
    return ActivationStore.open(path).select("embed").numpy()


@pytest.mark.parametrize("build", REFUSED, ids=lambda build: build.__name__)
def test_guard_refuses(store, tmp_path, build):
    target = tmp_path / "private.h5"
    with h5py.File(target, "w") as file:
        file["secret"] = np.arange(4, dtype="u1")
    before = target.read_bytes()
    hostile(store / SHARD, build, target)
    for work in (read, lambda path: StoreWriter.resume(path, ActivationStore.open(path).plan)):
        with pytest.raises(BabelScopeError, match=f"{SHARD}: not read: .*{REFUSED[build]}"):
            work(store)
    assert [bool(re.search(REFUSED[build], finding.problem)) for finding in verify(store).findings] == [True]
    assert target.read_bytes() == before  # nothing is written through external storage either


def opens_seen(path, work):
    """How often `path` was opened meanwhile, by whatever code; an audit hook would not see what HDF5 opens."""
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_NONBLOCK)
    assert libc.inotify_add_watch(watch, os.fsencode(path), 0x20) > 0  # IN_OPEN
    work()
    try:
        return len(os.read(watch, 4096)) // 16
    except BlockingIOError:
        return 0
    finally:
        os.close(watch)


@pytest.mark.skipif(sys.platform != "linux", reason="inotify is of Linux")
@pytest.mark.parametrize("build", [external_raw, external_link, vds])
def test_guard_reads_nothing_first(store, tmp_path, build):
    target = tmp_path / "private.h5"
    with h5py.File(target, "w") as file:
        file["secret"] = np.arange(4, dtype="u1")
    hostile(store / SHARD, build, target)

    def plainly():
        with h5py.File(store / SHARD) as file:
            file["x"][()]

    def ours():
        with pytest.raises(BabelScopeError):
            read(store)
        verify(store, full=True)

    assert opens_seen(target, plainly) > 0
    assert opens_seen(target, ours) == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_guard_accepts_own_shards(tmp_path, dtype):
    prompts = make_prompts()
    sites = {"sites": (Site("attn.mass", 1), Site("attn.pattern", 1)), "n_keys": 4, "segments": ("cue", "fråga")}
    for number, more in enumerate(({"positions": (LAST, ALL, WORDS)}, sites, {"answers": "texts", "continuation": 2})):
        plan = make_plan(prompts, dtype, **more)
        path = fill(tmp_path / f"{number}.acts", plan, prompts, failed={"en": (0, 1)}).path
        assert verify(path, full=True).findings == ()


def test_guard_accepts_what_any_hdf5_can_unpack(tmp_path):
    path = tmp_path / "packed.h5"
    with h5py.File(path, "w") as file:
        values = np.arange(10_000.0)
        file.create_dataset("a/b/x", data=values, chunks=(1000,), compression="gzip", shuffle=True, fletcher32=True)
    with h5py.File(path) as file:
        guard.admit(file)


@pytest.mark.parametrize(
    ("change", "reason"), [(lambda b: b + b"\0", "and says that"), (lambda b: b"\0" * 512 + b, "first byte")]
)
def test_bytes_before_or_behind_a_shard_are_refused(store, change, reason):
    good = (store / SHARD).read_bytes()
    (store / SHARD).unlink()
    (store / SHARD).write_bytes(change(good))
    with h5py.File(store / SHARD) as file:
        assert "rows" in file  # HDF5 itself passes over them
    with pytest.raises(BabelScopeError, match=f"not read: .*{reason}"):
        read(store)


def test_a_user_defined_link_is_refused(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", libver="earliest") as file:
        file.create_group("g")["x"] = h5py.ExternalLink("/elsewhere.h5", "y")
    # The class of the link, 64 for an external one, becomes 65; no checksum covers it in this old format.
    data, found = re.subn(rb"\x40(\x01?\x01x..\0/elsewhere)", rb"A\1", path.read_bytes(), flags=re.DOTALL)
    assert found == 1
    path.write_bytes(data)
    with h5py.File(path) as file, pytest.raises(BabelScopeError, match="a user-defined link"):
        guard.admit(file)


def test_a_file_is_examined_once_and_again_when_it_is_another(store, monkeypatch):
    examined = []
    check = guard._check_objects
    monkeypatch.setattr(guard, "_check_objects", lambda *a: (examined.append(a), check(*a)))
    for _ in range(3):
        read(store)
    assert len(examined) == 1
    hostile(store / SHARD, soft_link)
    with pytest.raises(BabelScopeError, match="a soft link"):
        read(store)


@pytest.mark.parametrize("name", [SHARD, "items.h5", "store.json"])
def test_a_pipe_is_not_waited_for(store, name):
    (store / name).unlink()
    os.mkfifo(store / name)
    with pytest.raises(BabelScopeError, match="no regular file"):
        ActivationStore.open(store).covariates, read(store)
    assert [finding.file for finding in verify(store, full=True).findings] == [name]


PLUGIN = """
#include <fcntl.h>
__attribute__((constructor)) static void ran(void) { open(TRACE, O_CREAT | O_WRONLY, 0600); }
int H5PLget_plugin_type(void) { return 0; }
static const struct { int version, id; unsigned encoder, decoder; const char *name; void *can, *local, *filter; }
    about = {1, 305, 1, 1, "evil", 0, 0, 0};
const void *H5PLget_plugin_info(void) { return &about; }
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="the plugin is compiled with gcc, which is not here")
def test_plugin_path_never_loaded(store, tmp_path):
    plugins, trace = tmp_path / "plugins", tmp_path / "trace"
    plugins.mkdir()
    (tmp_path / "evil.c").write_text(PLUGIN)
    subprocess.run(
        ["gcc", "-shared", "-fPIC", f'-DTRACE="{trace}"', "-o", plugins / "libevil.so", tmp_path / "evil.c"], check=True
    )
    with h5py.File(store / SHARD, "r") as file:
        owner = dict(file.attrs)
    (store / SHARD).unlink()
    with h5py.File(store / SHARD, "w") as file:
        file.attrs.update(owner)
        asks_for_a_plugin(file)
    environment = {**os.environ, "HDF5_PLUGIN_PATH": str(plugins), "PYTHONPATH": str(ROOT)}
    environment.pop("HDF5_PLUGIN_PRELOAD", None)  # a command that ran in this process has set it

    def run(*arguments):
        return subprocess.run([sys.executable, *map(str, arguments)], env=environment, capture_output=True, text=True)

    def ran(*arguments):
        trace.unlink(missing_ok=True)
        run(*arguments)
        return trace.exists()

    assert ran("-c", f"import h5py; h5py.File({str(store / SHARD)!r})['x'][()]")  # or this test would prove nothing
    reading = f"import babelscope as bs, h5py; s = bs.open({str(store)!r})\ntry: s.select('embed').numpy()\n"
    # Once a store was opened, not even a careless read of the file loads the plugin.
    reading += f"except bs.BabelScopeError: h5py.File({str(store / SHARD)!r})['x'][()]"
    assert not ran("-c", reading)
    for command in (["inspect"], ["verify", "--full", "--untrusted"], ["repair", "--dry-run"]):
        assert not ran(ROOT / "cli.py", command[0], store, *command[1:])
    assert "filter 305" in run(ROOT / "cli.py", "verify", store).stdout


def test_what_an_own_store_holds_is_what_it_held(store):
    before = shards_of(store)
    read(store)
    verify(store, full=True)
    assert shards_of(store) == before
