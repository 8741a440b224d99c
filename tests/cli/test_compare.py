"""`analyze before.acts after.acts`, as a user runs it."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.cli.conftest import Finished
from tests.cli.test_errors import assert_one_problem

Cli = Callable[..., Finished]
OPTIONS = ("--prompts", "kfrd-arithmetic", "--languages", "en,de", "--limit", "8", "--no-self-test")


def test_before_and_after_are_compared_with_one_command(cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.1)
    model.save_pretrained(tmp_path / "trained")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "trained")
    for name, folder in (("before", tiny_model), ("after", tmp_path / "trained")):
        assert cli("capture", f"{name}.acts", "--model", folder, *OPTIONS).code == 0
    done = cli("analyze", "before.acts", "after.acts", "--metric", "cs", "--mode", "corrected")
    assert done.code == 0, done.err
    assert done.out.endswith("before.acts.comparison/tables\n")
    change = pd.read_csv("before.acts.comparison/tables/change.csv")
    assert set(change["after"]) == {"after"}
    assert set(change["n"]) == {8}
    answers = pd.read_csv("before.acts.comparison/tables/accuracy_change.csv")
    assert answers["language"].tolist() == ["en", "de"]
    again = cli("analyze", "before.acts", "after.acts", "--metric", "cs")
    assert_one_problem(again, "before.acts.comparison exists already", "--overwrite")
