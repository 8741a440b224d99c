"""`train`: a small model is trained for real, killed, resumed, and loaded without us."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
import yaml
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

import babelscope as bs
from babelscope.datasets.native import write_prompts
from babelscope.errors import BabelScopeError
from babelscope.schema import Prompt, PromptSet, Segment
from babelscope.training.ablation import AblationConfig, Questions, Variant, read_ablation
from babelscope.training.chain import ChainConfig, read_chain
from babelscope.training.collate import IGNORED, Collate
from babelscope.training.config import (
    Capture,
    Data,
    Lora,
    Optimization,
    Qcross,
    TrainConfig,
    config_of,
    read_config,
)
from babelscope.training.examples import answer_of, classes, responses
from babelscope.training.fitting import last_checkpoint
from babelscope.training.yaml_files import presets
from tests.cli import tiny
from tests.cli.conftest import Finished
from tests.forked import babelscope, forked

Cli = Callable[..., Finished]
# peft asks for a name that transformers is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

DATA = {"prompts": ["kfrd-arithmetic"], "parameters": {"items": 24}, "languages": ["en"]}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_model(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_encoder(tmp_path_factory.mktemp("encoder") / "bert")


def record(model: Path, method: str = "lora", **more: object) -> dict[str, object]:
    made = {
        "method": method, "model": str(model), "data": DATA, "lora": {"r": 4, "alpha": 8},
        "optimization": {"learning_rate": 1e-2, "batch": 4, "max_length": 512},
    }  # fmt: skip
    for name, value in more.items():
        made[name] = {**made.get(name, {}), **value} if isinstance(value, dict) else value
    return made


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(next(folder.glob("*model.safetensors")))


def questions(n: int = 12) -> PromptSet:
    def prompt(i: int) -> Prompt:
        context, question = f"Ann is {'kind' if i % 2 else 'rude'}.", "Ann is kind?"
        text = f"{context} {question}"
        spans = (Segment("context", 0, len(context), "en"), Segment("question", len(context) + 1, len(text), "en"))
        return Prompt(f"q{i}", "en", text, spans, ("A", "B"), ("no", "yes"), gold=i % 2)

    return PromptSet("questions", tuple(prompt(i) for i in range(n)))


# --- What is trained on.


def test_only_the_answer_is_predicted(model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model)
    prompts = bs.generate("kfrd-arithmetic", items=3, languages=["en"])
    rows = responses(prompts, tokenizer, 512, "refuse", end_of_text=False)
    batch = Collate(0)(rows.rows)
    for i, prompt in enumerate(prompts.prompts):
        told = batch["labels"][i][batch["labels"][i] != IGNORED]
        assert tokenizer.decode(told) == answer_of(prompt) == f" {prompt.letters[prompt.gold]}"
        read = batch["input_ids"][i][batch["attention_mask"][i].bool()]
        assert tokenizer.decode(read, skip_special_tokens=True) == prompt.text + answer_of(prompt)


def test_a_classifier_reads_context_and_question_as_a_pair(encoder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    rows = classes(questions(4), tokenizer, 512, "refuse")
    assert [row.label for row in rows.rows] == [0, 1, 0, 1]
    assert rows[0].ids == tuple(tokenizer("Ann is rude.", "Ann is kind?")["input_ids"])
    assert Collate(0)(rows.rows)["labels"].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("policy", ["truncate", "drop"])
def test_what_is_too_long_is_counted(model: Path, policy: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model)
    prompts = bs.generate("kfrd-arithmetic", items=8, languages=["en"])
    lengths = [len(x) + 1 for x in tokenizer([p.text for p in prompts.prompts])["input_ids"]]
    limit = sorted(lengths)[4]
    with pytest.raises(BabelScopeError, match="longer than") as caught:
        responses(prompts, tokenizer, limit, "refuse", end_of_text=False)
    assert "over_length" in caught.value.hint
    found = responses(prompts, tokenizer, limit, policy, end_of_text=False)
    n_long = sum(n > limit for n in lengths)
    assert len(found) == 8 - n_long * (policy == "drop")
    assert all(len(row.ids) <= limit for row in found.rows)
    assert found.notes[0].startswith(f"{n_long} of 8")
    assert all(row.ids[row.start :] for row in found.rows)


# --- Methods.


def test_lora_is_loaded_by_peft_and_captured_without_us(model: Path, tmp_path: Path) -> None:
    out = bs.train(record(model), tmp_path / "tuned")
    assert not (tmp_path / "tuned.checkpoints").exists()
    base = AutoModelForCausalLM.from_pretrained(model)
    tuned = PeftModel.from_pretrained(base, out)
    trained = {n: p for n, p in tuned.named_parameters() if "lora_B" in n}
    assert trained
    assert all(p.abs().sum() > 0 for p in trained.values())
    card = json.loads((out / "run_card.json").read_text())
    assert card["steps"] == 6
    assert card["languages"] == ["en"]
    assert card["log"][-1]["step"] == 6
    assert yaml.safe_load((out / "config.yaml").read_text())["lora"]["r"] == 4
    assert "base_model" in (out / "README.md").read_text()
    store = bs.capture(
        tmp_path / "run.acts", model=str(model), adapter=str(out), prompts="kfrd-arithmetic", languages=["en", "de"],
        limit=4,
    )  # fmt: skip
    assert store.progress == (2, 2)


def test_a_merged_adapter_is_a_model(model: Path, tmp_path: Path) -> None:
    kept = bs.train(record(model), tmp_path / "kept")
    merged = bs.train(record(model, lora={"r": 4, "alpha": 8, "merge": True}), tmp_path / "merged")
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        one = AutoModelForCausalLM.from_pretrained(merged)(ids).logits
        other = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), kept)(ids).logits
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_bitfit_moves_biases_and_the_head_alone(encoder: Path, tmp_path: Path) -> None:
    write_prompts(questions(), tmp_path / "q.jsonl")
    data = {"prompts": [str(tmp_path / "q.jsonl")], "parameters": {}, "languages": None}
    for mode in ("corrected", "paper"):
        out = bs.train(record(encoder, "bitfit", data=data, mode=mode), tmp_path / mode)
        before = transformers.BertForMaskedLM.from_pretrained(encoder).state_dict()
        after = weights(out)
        moved = {n for n in after if n in before and not torch.equal(after[n], before[n])}
        assert moved
        assert all(n.endswith("bias") for n in moved)
        assert AutoModelForSequenceClassification.from_pretrained(out).config.num_labels == 2
    heads = [weights(tmp_path / mode)["classifier.weight"] for mode in ("corrected", "paper")]
    card = json.loads((tmp_path / "paper" / "run_card.json").read_text())
    assert not torch.equal(*heads)
    assert card["trainable_parameters"] < 1000  # the new classifier stays random, as the authors' baseline does


def test_full_tuning_on_plain_text(model: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("Ein Satz und noch einer.\n\nOne more sentence here.\n" * 8, "utf-8")
    data = {"prompts": [], "parameters": {}, "languages": None, "text": [str(tmp_path / "text.txt")]}
    out = bs.train(record(model, "full", data=data), tmp_path / "tuned")
    log = json.loads((out / "run_card.json").read_text())["log"]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert losses[-1] < losses[0]
    assert AutoTokenizer.from_pretrained(out).get_vocab()


def test_full_tuning_on_a_mixed_language_corpus(cli: Cli, model: Path) -> None:
    for language, line in (("en", "One sentence here."), ("de", "Ein Satz steht hier.")):
        Path(f"doc.{language}.txt").write_text(f"{line}\n\n" * 12, "utf-8")
    mix = ("data", "mix", "doc.{language}.txt", "mixed.jsonl", "--unit", "document", "--mapping", "key=row text=text")
    done = cli(*mix, "--languages", "en,de")
    assert done.code == 0, done.err
    data = {"prompts": [], "parameters": {}, "languages": None, "text": ["mixed.jsonl"]}
    out = bs.train(record(model, "full", data=data), Path("tuned"))
    card = json.loads((out / "run_card.json").read_text())
    assert (card["examples"], card["languages"]) == (12, ["de", "en"])
    tokenizer = AutoTokenizer.from_pretrained(model)
    lines = [json.loads(line)["text"] for line in Path("mixed.jsonl").read_text("utf-8").splitlines()]
    assert card["tokens"] == sum(len(x) + 1 for x in tokenizer(lines)["input_ids"])


# --- Interruptions.


def test_a_run_that_was_killed_ends_with_the_same_weights(cli: Cli, model: Path, tmp_path: Path) -> None:
    config = record(model, save_steps=2, lora={"r": 4, "alpha": 8, "dropout": 0.2},
                    data={"parameters": {"items": 64}}, optimization={"epochs": 3})  # fmt: skip
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    whole = bs.train(config, tmp_path / "whole")
    command = ("train", "lora", str(tmp_path / "cut"), "--config", str(tmp_path / "run.yaml"))
    with forked(babelscope, *command, cwd=tmp_path) as process:
        while last_step(tmp_path / "cut.checkpoints") < 8:
            assert process.is_alive(), process.said
            time.sleep(0.01)
        process.kill()
    assert not (tmp_path / "cut").exists()
    (tmp_path / "cut.checkpoints/checkpoint-1000").mkdir()  # as if it had been killed while it wrote one
    again = cli(*command, "--resume")
    assert again.code == 0, again.err
    a, b = weights(whole), weights(tmp_path / "cut")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def last_step(folder: Path) -> int:
    return max((int(p.name.rpartition("-")[2]) for p in folder.glob("checkpoint-*")), default=0)


def test_two_processes_of_torchrun_train_one_model(model: Path, tmp_path: Path) -> None:
    watched = {"every": 2, "prompts": ["knowledge"], "languages": ["en", "de"], "limit": 4}
    (tmp_path / "run.yaml").write_text(
        yaml.safe_dump(record(model, data={"parameters": {"items": 32}}, capture=watched))
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
               str(tiny.ROOT / "cli.py"), "train", "lora", "out", "--config", "run.yaml"]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "out\n"
    card = json.loads((tmp_path / "out/run_card.json").read_text())
    assert card["steps"] == 4  # 32 examples, four on each of two devices
    assert bs.open_steps(tmp_path / "out.steps").steps == (0, 2, 4)
    assert all(s.progress == (2, 2) for s in bs.open_steps(tmp_path / "out.steps").stores.values())


def test_ctrl_c_writes_a_checkpoint_and_says_how_to_go_on(model: Path, tmp_path: Path) -> None:
    config = record(model, save_steps=500, optimization={"epochs": 400})
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    command = ("train", "lora", str(tmp_path / "cut"), "--config", str(tmp_path / "run.yaml"))
    with forked(babelscope, *command, cwd=tmp_path) as process:
        while not (tmp_path / "cut.checkpoints").exists():
            assert process.is_alive(), process.said
            time.sleep(0.01)
        time.sleep(1)
        process.interrupt(signal.SIGINT)
        process.join(60)
        err = process.said
        assert process.exitcode == 130, err
    assert "--resume" in err
    assert "Traceback" not in err
    assert last_step(tmp_path / "cut.checkpoints") > 0


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_checkpoint(model: Path, tmp_path: Path) -> None:
    config = record(model, "full", save_steps=1, optimization={"learning_rate": 1e38, "clip": 0})
    with pytest.raises(BabelScopeError, match=r"the loss of step \d+ is (nan|inf); .*checkpoint-\d+ is kept") as caught:
        bs.train(config, tmp_path / "out")
    assert "learning_rate" in caught.value.hint
    assert not (tmp_path / "out").exists()
    kept = last_checkpoint(tmp_path / "out.checkpoints")
    assert kept is not None


def test_another_run_does_not_go_on_from_these_checkpoints(model: Path, tmp_path: Path) -> None:
    (tmp_path / "out.checkpoints").mkdir()
    with pytest.raises(BabelScopeError, match="holds an unfinished run"):
        bs.train(record(model), tmp_path / "out")
    with pytest.raises(BabelScopeError, match="does not say what was trained"):
        bs.train(record(model), tmp_path / "out", resume=True)
    other = config_of(record(model, optimization={"batch": 2}))
    (tmp_path / "out.checkpoints/config.json").write_text(other.model_dump_json())
    with pytest.raises(BabelScopeError, match=r"optimization.batch was 2 and is 4"):
        bs.train(record(model), tmp_path / "out", resume=True)
    with pytest.raises(BabelScopeError, match="nothing to resume"):
        bs.train(record(model), tmp_path / "new", resume=True)


# --- Bad input, before the first step.


@pytest.mark.parametrize(
    ("change", "problem", "hint"),
    [
        ({"optimisation": {}}, "optimisation is no field", "did you mean optimization"),
        ({"optimization": {"learning_rate": -1}}, "optimization.learning_rate: Input should be greater than 0", "docs"),
        ({"optimization": {"lr": 1}}, "optimization.lr is no field", "learning_rate"),
        ({"data": {"text": ["x.txt"]}}, "name prompts or text, one of them", "docs"),
        ({"method": "prefix"}, "method", "docs"),
    ],
)
def test_a_wrong_field_is_named(model: Path, change: dict, problem: str, hint: str) -> None:
    with pytest.raises(BabelScopeError) as caught:
        config_of(record(model, **change), "run.yaml")
    assert "run.yaml" in caught.value.problem
    assert problem in caught.value.problem
    assert hint in caught.value.hint


def test_what_cannot_be_trained_is_refused(model: Path, encoder: Path, tmp_path: Path) -> None:
    def refusal(config: dict) -> BabelScopeError:
        with pytest.raises(BabelScopeError) as caught:
            bs.train(config, tmp_path / "out")
        assert list(tmp_path.glob("out*")) == []
        return caught.value

    assert "has no biases" in refusal(record(model, "bitfit")).problem
    assert "lora" in refusal(record(model, "bitfit")).hint
    unanswered = PromptSet("open", tuple(Prompt(f"q{i}", "en", "What is it?") for i in range(3)))
    write_prompts(unanswered, tmp_path / "open.jsonl")
    plain = {"parameters": {}, "languages": None}
    assert (
        "3 of 3 prompts lack a gold option or an answer"
        in refusal(record(model, data={**plain, "prompts": [str(tmp_path / "open.jsonl")]})).problem
    )
    odd = PromptSet(
        "odd", (*questions(4).prompts, Prompt("z", "en", "x", (), ("A", "B", "C"), ("a", "b", "c"), gold=2))
    )
    write_prompts(odd, tmp_path / "odd.jsonl")
    found = refusal(record(encoder, "full", data={**plain, "prompts": [str(tmp_path / "odd.jsonl")]}))
    assert "item 'z' in 'en' has 3 options, others have 2" in found.problem
    assert "longer than 8 tokens" in refusal(record(model, optimization={"max_length": 8})).problem
    assert "no adapter can be put on nothing" in refusal(record(model, lora={"targets": ["nothing"]})).problem
    assert "among mining" in refusal(record(model, data={"rules": ["mining"]})).problem
    assert (
        "does not write text"
        in refusal(record(encoder, "full", data={**plain, "prompts": [], "text": [__file__]})).problem
    )
    assert "cannot be loaded" in refusal(record(tmp_path / "none")).problem
    assert "no parameter 'shade'" in refusal(record(model, data={"parameters": {"shade": 1}})).problem


def test_presets_are_read_and_say_what_they_are() -> None:
    assert {"kfr-lora-arithmetic", "mixed-full", "small-lora-knowledge"} <= presets().keys()
    for name, about in ((n, a) for n, a in presets().items() if not n.startswith(("ablation", "chain"))):
        assert about
        config = read_config(name, changes=["seed=3"])
        assert config.seed == 3
    published = read_config("kfr-lora-strategyqa", "lora")
    assert (published.lora.r, published.lora.alpha, published.optimization.epochs) == (128, 16, 4)
    assert published.optimization.batch * published.optimization.accumulation == 64
    with pytest.raises(BabelScopeError, match="method is 'lora', and the command is `train full`"):
        read_config("kfr-lora-qasc", "full")
    with pytest.raises(BabelScopeError, match="no preset called 'kfr-lora-qasx'"):
        read_config("kfr-lora-qasx")


def test_the_page_lists_every_field_and_its_chain_and_grid_are_read() -> None:
    page = (tiny.ROOT / "docs/training.md").read_text("utf-8")
    listed = page.partition("## All fields")[2].partition("## Cross-lingual queries")[0]
    models = (TrainConfig, Data, Lora, Optimization, Qcross, Capture, ChainConfig, AblationConfig, Questions, Variant)
    for kind in models:
        for field in kind.model_fields:
            assert f"`{field}`" in listed, (kind, field)
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    assert len(blocks) == 3
    assert config_of(blocks[0]).lora.r == 128
    assert list(read_chain(blocks[1]).stages) == ["cpt", "cpt-sft"]
    assert list(read_ablation(blocks[2]).variants) == ["bitfit", "dropout"]


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(model: Path, tmp_path: Path) -> None:
    plan = bs.train(record(model), tmp_path / "out", dry_run=True, limit=10)
    assert (plan.examples, plan.steps) == (10, 3)
    assert "trainable" in str(plan)
    assert list(tmp_path.iterdir()) == []
