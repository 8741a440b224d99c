"""The commands that move stores around, as they are typed."""

from collections.abc import Callable
from pathlib import Path

from tests.cli.conftest import Finished


def test_a_store_goes_around(cli: Callable[..., Finished], store: Path) -> None:
    packed = cli("pack", store, "-o", "run.h5")
    assert packed.code == 0
    assert "run.h5" in packed.out
    shown = [cli("inspect", path).out.splitlines()[1:4] for path in (store, "run.h5")]
    assert shown[0] == shown[1]
    assert cli("unpack", "run.h5", "again.acts").code == 0
    assert cli("merge", "out.acts", "again.acts", store, "--dry-run").out.startswith("shards ")
    assert not Path("out.acts").exists()
    assert cli("merge", "out.acts", "again.acts", store).code == 0
    assert cli("export", "run.h5", "npy", "--format", "numpy", "--site", "resid.post", "--layer", "1").out == "npy\n"
    assert cli("export", "run.h5", "x", "--format", "arrow", "--dry-run").out.startswith("arrays ")
    imported = cli("import", "back.acts", "npy", "--from", "npy")
    assert imported.code == 0
    assert "resid.post x 1 at last" in imported.out
    assert '"model_was_run_here": false' in cli("inspect", "back.acts", "--provenance").out
    assert sorted(p.name for p in Path.cwd().iterdir()) == ["again.acts", "back.acts", "npy", "out.acts", "run.h5"]


def test_a_problem_is_one_line_and_one_hint(cli: Callable[..., Finished], store: Path) -> None:
    for arguments in (
        ("unpack", store, "out"), ("merge", "out", store, "no.acts"), ("export", store, "out", "--format", "csv"),
        ("import", "out", store, "--from", "npy"), ("import", "out", store, "--from", "pickle"), ("pack", "no.acts"),
    ):  # fmt: skip
        done = cli(*arguments)
        assert done.code == 1, arguments
        assert "hint: " in done.err
        assert "Traceback" not in done.err
    assert list(Path.cwd().iterdir()) == []
