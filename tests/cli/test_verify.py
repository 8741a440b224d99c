"""`verify` and `repair` as commands, on a captured store."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli import tiny
from tests.cli.conftest import Finished
from tests.cli.test_errors import assert_one_problem
from tests.store.stores import shards_of

Cli = Callable[..., Finished]
SHARD = "shards/l-de/000000000-000000004.h5"


@pytest.fixture
def mine(store: Path, cli: Cli) -> Path:
    """A copy of the captured store, in the current folder."""
    return Path(shutil.copytree(store, "run.acts"))


def damage(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) * 9 // 10] ^= 1  # in the values: what HDF5 leaves empty has no checksum
    file.unlink()
    file.write_bytes(data)


def test_a_capture_ends_with_the_digest_of_every_file(mine: Path) -> None:
    checked = subprocess.run(
        ["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=mine, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    files = {p.relative_to(mine).as_posix() for p in mine.rglob("*") if p.is_file()}
    assert {line.removesuffix(": OK") for line in checked.stdout.splitlines()} == files - {"SHA256SUMS"}


@pytest.mark.parametrize("options", [[], ["--full"], ["--full", "--untrusted"]])
def test_a_store_as_it_was_captured_has_no_finding(cli: Cli, mine: Path, options: list[str]) -> None:
    done = cli("verify", mine, *options)
    assert done.code == 0, done.out + done.err
    assert "no finding" in done.out
    assert "verify" in done.err  # the bar


def test_every_finding_is_listed_and_the_damaged_shard_is_captured_again(
    cli: Cli, mine: Path, tiny_model: Path
) -> None:
    want = shards_of(mine)
    damage(mine / SHARD)
    (mine / "shards/l-en/x.h5").write_bytes(b"?")
    done = cli("verify", mine, "--full")
    assert (done.code, done.err.count("hint: ")) == (1, 1)
    assert f"cli.py repair {mine}" in done.err
    assert [line.split(": ")[0] for line in done.out.splitlines()] == [SHARD, "shards/l-en/x.h5", str(mine)]
    told = json.loads(cli("verify", mine, "--full", "--json").out)
    assert [(finding["file"], finding["damaged"]) for finding in told["findings"]] == [
        (SHARD, True), ("shards/l-en/x.h5", False),
    ]  # fmt: skip
    assert f"{SHARD} -> quarantine\n" in cli("repair", mine, "--dry-run").out
    assert (mine / SHARD).exists()
    done = cli("repair", mine)
    assert done.code == 1  # x.h5 is nobody's
    assert f"{SHARD} -> quarantine/" in done.out
    (mine / "shards/l-en/x.h5").unlink()
    assert cli("capture", mine, "--model", tiny_model, *tiny.ARGUMENTS, "--resume").code == 0
    assert {name: data for name, data in shards_of(mine).items() if name[:10] != "quarantine"} == want
    assert cli("verify", mine, "--full").code == 0
    assert cli("repair", mine).out == f"{mine}: 0 damaged files moved\n"


@pytest.mark.parametrize("command", [["verify"], ["verify", "--full", "--untrusted"], ["repair"]])
def test_what_is_no_store_is_one_problem(cli: Cli, command: list[str]) -> None:
    Path("other").mkdir()
    assert_one_problem(cli(command[0], "other", *command[1:]), "other is no BabelScope store", "capture one")
