"""Stores captured while a model is trained: one for each step, without a trace in the training."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file

import babelscope as bs
from babelscope.errors import BabelScopeError
from babelscope.training.config import config_of
from tests.cli import tiny
from tests.cli.conftest import Finished
from tests.forked import babelscope, forked

Cli = Callable[..., Finished]
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

CAPTURE = {"every": 2, "prompts": ["knowledge"], "languages": ["en", "de"], "limit": 6, "sites": ["resid.post"]}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_model(tmp_path_factory.mktemp("base") / "tiny")


def record(model: Path, method: str = "lora", **more: object) -> dict[str, object]:
    return {
        "method": method, "model": str(model), "lora": {"r": 4, "alpha": 8, "dropout": 0.1},
        "data": {"prompts": ["kfrd-arithmetic"], "parameters": {"items": 20}, "languages": ["en"]},
        "optimization": {"learning_rate": 1e-2, "batch": 4, "max_length": 512}, **more,
    }  # fmt: skip


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(next(folder.glob("*model.safetensors")))


@pytest.mark.parametrize("method", ["lora", "full"])
def test_steps_are_captured_and_the_training_is_the_same_without(model: Path, tmp_path: Path, method: str) -> None:
    plain = bs.train(record(model, method), tmp_path / "plain")
    seen = bs.train(record(model, method, capture=CAPTURE), tmp_path / "seen")
    a, b = weights(plain), weights(seen)
    assert all(torch.equal(a[name], b[name]) for name in a)
    steps = bs.open_steps(tmp_path / "seen.steps")
    assert steps.steps == (0, 2, 4, 5)
    assert len({steps[step].fingerprint for step in steps.steps}) == 4  # each names the weights that it saw
    # Step 0 is the base, and the last one the model that was written.
    prompts = bs.generate("knowledge", languages=["en", "de"]).select(limit=6)
    for step, options in ((0, {"model": str(model)}), (5, {"model": str(seen)})):
        again = bs.capture(tmp_path / f"again-{step}.acts", prompts=prompts, sites=["resid.post"], **options)
        np.testing.assert_allclose(
            steps[step].select("resid.post").numpy(), again.select("resid.post").numpy(), atol=2e-5
        )
    values = steps.xarray("resid.post@1")
    assert values.sizes["step"] == 4
    np.testing.assert_array_equal(values.sel(step=4), steps[4].select("resid.post@1").xarray())


def test_metrics_of_every_step_are_those_of_its_store(cli: Cli, model: Path) -> None:
    bs.train(record(model, capture=CAPTURE), Path("tuned"))
    done = cli("analyze", "tuned.steps", "--metric", "cs", "--mode", "corrected")
    assert done.code == 0, done.err
    table = pd.read_csv("tuned.steps.analysis/tables/cs_by_step.csv")
    assert sorted(set(table["step"])) == [0, 2, 4, 5]
    alone = bs.analyze(Path("tuned.steps/step-00000004.acts"), ["cs"], mode="corrected")["cs"].table
    alone = alone[(alone["language_a"] == "*") & alone["layer"].isna()].set_index("variant")["gap"]
    found = table[table["step"] == 4].set_index("variant")["gap"]
    np.testing.assert_allclose(found, alone.loc[found.index], atol=1e-12)
    assert "while it was trained" in Path("tuned.steps.analysis/report.html").read_text("utf-8")


def test_a_run_that_was_killed_has_the_steps_of_one_that_was_not(model: Path, tmp_path: Path) -> None:
    config = record(model, capture=CAPTURE, save_steps=3, optimization={
        "learning_rate": 1e-2, "batch": 4, "max_length": 512, "epochs": 8,
    })  # fmt: skip
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    command = ("train", "lora", str(tmp_path / "cut"), "--config", str(tmp_path / "run.yaml"))
    with forked(babelscope, *command, cwd=tmp_path) as process:
        while not (tmp_path / "cut.steps/step-00000008.acts/store.json").exists():
            assert process.is_alive(), process.said
            time.sleep(0.01)
        process.kill()
    bs.train(config, tmp_path / "cut", resume=True)
    whole = bs.train(config, tmp_path / "whole")
    assert all(torch.equal(x, weights(whole)[name]) for name, x in weights(tmp_path / "cut").items())
    cut, undisturbed = bs.open_steps(tmp_path / "cut.steps"), bs.open_steps(tmp_path / "whole.steps")
    assert cut.steps == undisturbed.steps
    for step in cut.steps:
        assert cut[step].fingerprint == undisturbed[step].fingerprint


def test_bad_input_is_told_before_the_first_step(model: Path, tmp_path: Path) -> None:
    with pytest.raises(BabelScopeError, match="capture needs the whole model"):
        config_of(record(model, capture=CAPTURE, trainer={"fsdp": "full_shard"}))
    with pytest.raises(BabelScopeError, match=r"capture\.sight is no field") as caught:
        config_of(record(model, capture={**CAPTURE, "sight": 2}))
    assert "sites" in caught.value.hint
    with pytest.raises(BabelScopeError, match="resid"):
        bs.train(record(model, capture={**CAPTURE, "sites": ["resid.most"]}), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    old = bs.train(record(model, capture={**CAPTURE, "every": 5}), tmp_path / "old")
    kept = {p: p.read_bytes() for p in (tmp_path / "old.steps").rglob("*") if p.is_file()}
    wrong = record(model, capture={**CAPTURE, "sites": ["resid.most"]})
    with pytest.raises(BabelScopeError, match="resid"):
        bs.train(wrong, old, overwrite=True)
    assert {p: p.read_bytes() for p in (tmp_path / "old.steps").rglob("*") if p.is_file()} == kept
    bs.train(record(model, capture=CAPTURE), old, overwrite=True)
    assert bs.open_steps(tmp_path / "old.steps").steps == (0, 2, 4, 5)
    (tmp_path / "new.steps").mkdir()
    (tmp_path / "new.steps/notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(BabelScopeError, match=r"new\.steps exists already"):
            bs.train(record(model, capture=CAPTURE), tmp_path / "new", overwrite=overwrite)
    with pytest.raises(BabelScopeError, match="holds no stores of training steps"):
        bs.open_steps(tmp_path / "new.steps")
