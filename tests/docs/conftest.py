"""One small capture of the embedded model, and a reader in an empty folder."""

from pathlib import Path

import pytest

import babelscope as bs
from tests.docs.running import Reader


@pytest.fixture(scope="session")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store that pages take for granted; copied before it is used."""
    path = tmp_path_factory.mktemp("given") / "run.acts"
    bs.capture(
        path, model="organism", prompts=["kfrd-arithmetic", "knowledge"], languages=["en", "de", "fr", "sw"],
        limit=24, sites=["resid.post", "mlp.act", "mlp.neurons", "attn.mass"], positions=["last", "weighted-mean"],
        self_test=False,
    )  # fmt: skip
    return path


@pytest.fixture
def reader(given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Reader:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return Reader(given, monkeypatch, capsys)
