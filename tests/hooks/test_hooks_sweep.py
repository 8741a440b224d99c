"""The sweep over the language models of transformers: its table is current, and it hides no failure."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from babelscope.errors import BabelScopeError

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "anatomy-sweep.md"


@pytest.fixture(scope="module")
def anatomy() -> ModuleType:
    spec = importlib.util.spec_from_file_location("anatomy_sweep", ROOT / "benchmarks" / "anatomy.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["anatomy_sweep"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_committed_table_has_at_least_185_located_models(anatomy: ModuleType) -> None:
    text = PAGE.read_text(encoding="utf-8")
    counts = [int(n) for n in re.search(r"\| (\d+) \| (\d+) \| (\d+) \| (\d+) \|", text).groups()]
    assert counts[0] >= 185
    assert sum(counts) == len(list(anatomy.classes()))  # every class is in it


@pytest.mark.parametrize("name", ["BloomForCausalLM", "MixtralForCausalLM", "MT5ForConditionalGeneration"])
def test_a_model_comes_out_as_the_table_says(name: str, anatomy: ModuleType) -> None:
    (job,) = [job for job in anatomy.classes() if job[0] == name]
    outcome = anatomy.examine(*job)
    assert outcome.status == "located", outcome.reason
    assert f"| {name} | {job[1]} | {outcome.parts} |" in PAGE.read_text(encoding="utf-8")


def test_a_law_that_fails_or_is_not_checked_counts_as_refused(
    anatomy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = ("BloomForCausalLM", "causal", "bloom")
    honest = anatomy.check_laws
    monkeypatch.setattr(
        anatomy, "check_laws", lambda *given: {k: e for k, e in honest(*given).items() if k != "mlp.out"}
    )
    assert anatomy.examine(*job).reason == "no law was checked for mlp.out"

    def fail(*_: object) -> None:
        raise BabelScopeError("site mlp.out@0 breaks its law")

    monkeypatch.setattr(anatomy, "check_laws", fail)
    outcome = anatomy.examine(*job)
    assert (outcome.status, outcome.reason) == ("refused", "site mlp.out@0 breaks its law")
