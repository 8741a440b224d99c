"""Cross-lingual queries are trained, put into classifiers, killed, resumed, captured, and compared in a grid."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoTokenizer, XLMRobertaConfig

import babelscope as bs
from babelscope.errors import BabelScopeError
from babelscope.qcross.injection import config_of
from babelscope.qcross.saving import body_state, read_record
from babelscope.training.ablation import read_ablation
from babelscope.training.classifying import classified
from babelscope.training.collate import IGNORED, Collate, Masking
from babelscope.training.config import config_of as train_config
from babelscope.training.config import read_config
from babelscope.training.examples import classes, pairs
from babelscope.training.methods import context_of
from babelscope.training.yaml_files import presets
from babelscope.workflows.ablation import _tabulated
from tests.cli import tiny
from tests.cli.conftest import Finished
from tests.forked import babelscope, forked

Cli = Callable[..., Finished]
RULES = {"prompts": ["ruletaker"], "parameters": {"items": 24, "max_depth": 1}}
FAST = {"learning_rate": 1e-2, "batch": 8, "max_length": 512}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_encoder(tmp_path_factory.mktemp("encoder") / "bert")


def record(model: Path, method: str, **more: object) -> dict[str, object]:
    data = {**RULES, "languages": ["en", "en-de"]}
    if method == "qcross":
        data = {**RULES, "languages": ["en-de", "en-sw"], "parallel": True}
    return {"method": method, "model": str(model), "data": data, "optimization": FAST, **more}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(next(folder.glob("*.safetensors")))


@pytest.fixture(scope="module")
def queries(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bs.train(record(encoder, "qcross"), tmp_path_factory.mktemp("queries") / "out")


# --- What is read.


def test_both_texts_and_the_language_of_every_token(encoder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    prompts = bs.generate("ruletaker", items=4, max_depth=1, languages=["en-de"])
    found = classes(prompts, tokenizer, 512, "refuse")
    for row, prompt in zip(found.rows, prompts.prompts, strict=True):
        context, question = prompt.segment("context"), prompt.segment("question")
        assert list(row.ids) == tokenizer(context, question)["input_ids"]
        border = len(tokenizer(context)["input_ids"])  # with [CLS] and the first [SEP], which belong to the context
        assert len(set(row.languages[:border])) == 1
        assert len(set(row.languages[border:])) == 1
        assert row.languages[0] != row.languages[-1]
    batch = Collate(0, languages=True)(found.rows)
    assert ((batch["language_ids"] == -1) == (batch["attention_mask"] == 0)).all()
    mono = classes(bs.generate("ruletaker", items=2, max_depth=1, languages=["de"]), tokenizer, 512, "refuse")
    assert len(set(mono.rows[0].languages)) == 1
    cut = classes(prompts, tokenizer, 40, "truncate").rows[0]
    assert len(cut.ids) == len(cut.languages) == 40
    assert cut.ids[0] == tokenizer.cls_token_id


def test_masking_is_that_of_bert(encoder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    rows = pairs(bs.generate("ruletaker", items=40, languages=["en-de"]), tokenizer, 512, "truncate")
    special = frozenset(tokenizer.all_special_ids)
    torch.manual_seed(0)
    plain = Collate(tokenizer.pad_token_id, languages=True)(rows.rows)
    batch = Masking(tokenizer.mask_token_id, len(tokenizer), special)(plain)
    chosen = batch["labels"] != IGNORED
    eligible = (plain["attention_mask"] == 1) & ~torch.isin(plain["input_ids"], torch.tensor(sorted(special)))
    assert (batch["labels"][chosen] == plain["input_ids"][chosen]).all()
    assert not (chosen & ~eligible).any()
    assert (batch["input_ids"][~chosen] == plain["input_ids"][~chosen]).all()
    # About 13,000 tokens: four standard errors are .013 and .04.
    assert chosen.sum() / eligible.sum() == pytest.approx(0.15, abs=0.015)
    masked = (batch["input_ids"] == tokenizer.mask_token_id)[chosen].float().mean()
    kept = (batch["input_ids"] == plain["input_ids"])[chosen].float().mean()
    assert masked.item() == pytest.approx(0.8, abs=0.04)
    assert kept.item() == pytest.approx(0.1, abs=0.04)


def test_each_item_stands_in_one_language_where_that_is_asked(encoder: Path, tmp_path: Path) -> None:
    data = {**RULES, "languages": ["en", "en-de"], "one_language_each": True}
    plan = bs.train({**record(encoder, "bitfit"), "data": data}, tmp_path / "out", dry_run=True)
    whole = bs.train(record(encoder, "bitfit"), tmp_path / "out", dry_run=True)
    assert (plan.examples, whole.examples) == (24, 48)


# --- What is trained, saved and read again.


def test_only_the_queries_move_and_only_they_are_written(encoder: Path, queries: Path) -> None:
    assert {p.name for p in queries.iterdir()} >= {"qcross.safetensors", "qcross.json", "run_card.json", "README.md"}
    assert not (queries / "model.safetensors").exists()
    card = json.loads((queries / "run_card.json").read_text())
    assert card["languages"] == ["en-de", "en-sw"]
    assert read_record(queries).languages == ("en-de", "en-sw")
    base = body_state(AutoModelForMaskedLM.from_pretrained(encoder))
    for name, tensor in weights(queries).items():
        own = base[name.replace(".cross.", ".")]
        assert tensor.shape == own.shape
        assert name.endswith("bias") or not torch.equal(tensor, own)
    assert card["trainable_parameters"] == sum(x.numel() for x in weights(queries).values())


def test_bitfit_with_trained_queries_is_saved_captured_and_asked(
    cli: Cli, encoder: Path, queries: Path, tmp_path: Path
) -> None:
    wanted = {"source": str(queries), "keep_cross": 0.3, "keep_same": 0.3}
    out = bs.train(record(encoder, "bitfit", qcross=wanted), tmp_path / "tuned")
    before, after = weights(queries), weights(out)
    for name, tensor in before.items():
        moved = not torch.equal(after[f"bert.{name}"], tensor)
        assert moved == name.endswith("bias"), name
    prompts = bs.generate("ruletaker", items=12, max_depth=1, languages=["en", "en-de", "de-en"])
    table = classified(str(out), prompts)
    assert table["language"].value_counts().to_dict() == {"en": 12, "en-de": 12, "de-en": 12}
    assert set(table["correct"]) <= {0.0, 1.0}
    command = ("classify", out, "--prompts", "ruletaker", "--languages", "en,en-de", "--limit", "6", "--out", "a.csv")
    done = cli(*command)
    assert done.code == 0, done.err
    assert [row.split()[:2] for row in done.out.splitlines()[1:3]] == [["en", "6"], ["en-de", "6"]]
    assert "accuracy, all items" in done.out
    by_depth = cli(*command[:-2], "--by", "depth", "--tables", "matrix")
    assert by_depth.code == 0, by_depth.err
    assert "accuracy, depth 5" in by_depth.out
    matrix = pd.read_csv("matrix/matrix.csv")
    assert set(zip(matrix["context"], matrix["question"], strict=True)) == {("en", "en"), ("en", "de")}
    assert set(matrix["value"].astype(str)) == {"all", *"012345"}
    unknown = cli(*command[:-2], "--by", "height")
    assert "height" in unknown.err
    assert len(pd.read_csv("a.csv")) == 12
    again = cli(*command)
    assert again.code == 1
    assert "a.csv exists already" in again.err
    none = cli("classify", encoder, "--prompts", "ruletaker")
    assert "has no classifier" in none.err
    store = bs.capture(tmp_path / "s.acts", model=str(out), prompts=prompts, sites=["resid.post", "attn.crossed"])
    share = store.select("attn.crossed", languages="en-de").numpy()
    assert (share > 0).all()
    assert (store.select("attn.crossed", languages="en").numpy() == 0).all()


def test_a_model_with_queries_is_trained_further_with_them(encoder: Path, queries: Path, tmp_path: Path) -> None:
    wanted = {"source": str(queries), "keep_cross": 0.3}
    first = bs.train(record(encoder, "bitfit", qcross=wanted), tmp_path / "first")
    again = bs.train(record(first, "full"), tmp_path / "again")
    before, after = weights(first), weights(again)
    assert before.keys() == after.keys()
    cross = [name for name in after if ".cross." in name and name.endswith("weight")]
    assert cross
    assert all(not torch.equal(before[name], after[name]) for name in cross)
    prompts = bs.generate("ruletaker", items=4, max_depth=1, languages=["en-de"])
    store = bs.capture(tmp_path / "s.acts", model=str(again), prompts=prompts, sites=["attn.crossed"])
    assert (store.select("attn.crossed").numpy() > 0).all()
    assert json.loads((again / "config.json").read_text())["qcross"]["keep_cross"] == 0.3
    with pytest.raises(BabelScopeError, match="which an adapter would leave out"):
        bs.train(record(first, "lora"), tmp_path / "lora")
    with pytest.raises(BabelScopeError, match="already"):
        bs.train(record(first, "bitfit", qcross={}), tmp_path / "twice")


def test_a_decoder_learns_queries_by_causal_language_modeling(tmp_path: Path) -> None:
    model = tiny.save_model(tmp_path / "tiny")
    watched = {"every": 3, "prompts": ["ruletaker"], "languages": ["en-de"], "limit": 4, "sites": ["attn.crossed"]}
    out = bs.train(record(model, "qcross", capture=watched), tmp_path / "queries")
    losses = [e["loss"] for e in json.loads((out / "run_card.json").read_text())["log"] if "loss" in e]
    assert losses[-1] < losses[0]
    steps = bs.open_steps(tmp_path / "queries.steps")
    shares = steps.xarray("attn.crossed@1")
    assert shares.sizes["step"] == len(steps.steps) > 2
    assert (shares.sel(step=0) != shares.sel(step=steps.steps[-1])).any()
    store = bs.capture(tmp_path / "s.acts", model=str(out), prompts="ruletaker", languages=["en-de"], limit=2)
    assert store.plan.model.adapter_sha256


def test_an_xlm_r_classifier_begins_with_the_dense_layer_of_the_language_model(encoder: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=514, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = transformers.XLMRobertaForMaskedLM(config)
    model.save_pretrained(tmp_path / "xlmr")
    tokenizer.save_pretrained(tmp_path / "xlmr")
    slow = {**record(tmp_path / "xlmr", "bitfit"), "optimization": {**FAST, "learning_rate": 1e-9}}
    out = bs.train(slow, tmp_path / "out")
    torch.testing.assert_close(
        weights(out)["classifier.dense.weight"], model.lm_head.dense.weight.data, atol=1e-6, rtol=0
    )
    assert context_of(model) == 514 - tokenizer.pad_token_id - 1


def test_a_pretraining_that_was_killed_ends_with_the_same_queries(encoder: Path, tmp_path: Path) -> None:
    config = record(encoder, "qcross", save_steps=2, optimization={**FAST, "epochs": 3})
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    whole = bs.train(config, tmp_path / "whole")
    command = ("train", "qcross", str(tmp_path / "cut"), "--config", str(tmp_path / "run.yaml"))
    with forked(babelscope, *command, cwd=tmp_path) as process:
        while not (tmp_path / "cut.checkpoints/checkpoint-8").exists():
            assert process.is_alive(), process.said
            time.sleep(0.01)
        process.kill()
    bs.train(config, tmp_path / "cut", resume=True)
    a, b = weights(whole), weights(tmp_path / "cut")
    assert all(torch.equal(a[name], b[name]) for name in a)


# --- The grid.


def grid(encoder: Path, **more: object) -> dict[str, object]:
    return {
        "model": str(encoder), "seeds": [0, 1], "baseline": "bitfit",
        "pretraining": {"shared": {"data": {**RULES, "languages": ["en-de"], "parallel": True}, "optimization": FAST}},
        "data": {**RULES, "languages": ["en", "en-de"], "one_language_each": True}, "optimization": FAST,
        "test": {**RULES, "limit": 12, "languages": ["en", "de", "en-de"]},
        "variants": {
            "bitfit": {}, "full": {"method": "full"},
            "dropout": {"qcross": {"cross_query": False, "keep_cross": 0.3, "keep_cross_eval": 1.0}},
            "qcross": {"pretrained": "shared", "qcross": {"keep_cross": 0.3, "keep_same": 0.3}},
        }, **more,
    }  # fmt: skip


def test_a_grid_is_a_table_with_intervals_and_goes_on_where_it_was_stopped(cli: Cli, encoder: Path) -> None:
    Path("grid.yaml").write_text(yaml.safe_dump(grid(encoder)))
    command = ("train", "ablation", "out", "--config", "grid.yaml")
    planned = cli(*command, "--dry-run", "--limit", "6")
    assert planned.code == 0, planned.err
    runs = {row.split()[0] for row in planned.out.splitlines()[1:]}
    assert runs == {"queries-shared", "bitfit", "full", "dropout", "qcross"}
    assert not Path("out").exists()
    done = cli(*command, "--part", "1/2")
    assert done.code == 0, done.err
    assert "4 runs are missing" in done.err
    stamps = {p: p.stat().st_mtime_ns for p in Path("out/answers").iterdir()}
    assert len(stamps) == 4
    found = bs.ablate(grid(encoder), Path("out"))
    assert all(p.stat().st_mtime_ns == t for p, t in stamps.items())
    table = found.table.set_index(["variant", "language"])
    assert len(table) == 4 * 5
    assert set(table["seeds"]) == {2}
    assert set(table["n"]) == {12}
    for name in ("bitfit", "qcross"):
        answers = pd.concat(pd.read_csv(f"out/answers/{name}-{s}.csv") for s in (0, 1))
        by_language = answers.groupby("language")["correct"].mean()
        for language in ("en", "de", "en-de"):
            assert table.loc[(name, language), "accuracy"] == pytest.approx(by_language[language])
        assert table.loc[(name, "all monolingual"), "accuracy"] == pytest.approx(by_language[["en", "de"]].mean())
    change = table.loc["qcross", "change"] - (table.loc["qcross", "accuracy"] - table.loc["bitfit", "accuracy"])
    np.testing.assert_allclose(change, 0, atol=1e-12)
    assert table.loc["bitfit", "change"].isna().all()
    assert (table["low"] <= table["accuracy"]).all()
    assert (table["accuracy"] <= table["high"]).all()
    with pytest.raises(BabelScopeError, match="holds something else than this grid"):
        bs.ablate(grid(encoder, seeds=[3]), Path("out"))


def test_a_change_is_that_of_the_same_seed_and_item_and_nothing_is_averaged_over_fewer(tmp_path: Path) -> None:
    variants = {"bitfit": {}, "full": {"method": "full"}, "alone": {}}
    asked = read_ablation(grid(Path("nowhere"), seeds=[0, 1, 2], pretraining={}, variants=variants))
    prompts = bs.generate("ruletaker", items=20, max_depth=1, languages=["en", "de", "en-de"])
    items = prompts.items
    (tmp_path / "answers").mkdir()
    rng = np.random.default_rng(0)
    right = {}
    # Seeds that differ by far: a change across seeds would be far from the one that was planted.
    for name, seeds, more in (("bitfit", (0, 1), 0.0), ("full", (1, 2), 0.2), ("alone", (2,), 0.0)):
        for seed in seeds:
            level = (0.9, 0.1, 0.9)[seed] + more * (seed == 1)
            table = pd.DataFrame(
                [(item, g, float(rng.random() < level)) for g in asked.test.languages for item in items],
                columns=["item", "language", "correct"],
            )
            if (name, seed) == ("full", 1):
                table = table[(table["item"] != items[0]) | (table["language"] != "de")]
            right[name, seed] = table
            table.to_csv(tmp_path / f"answers/{name}-{seed}.csv", index=False)
    found = _tabulated(asked, tmp_path, prompts, n_boot=200, n_perm=199).table.set_index(["variant", "language"])
    one = found.loc[("full", "de")]
    assert (one["seeds"], one["n"]) == (2, 19)
    wide = {k: t[t["language"] == "de"].set_index("item")["correct"] for k, t in right.items()}
    assert one["change"] == pytest.approx((wide["full", 1] - wide["bitfit", 1]).dropna().mean())
    assert found.loc[("full", "all monolingual"), "n"] == 19
    lonely = found.loc["alone"]  # no seed in common with the baseline
    assert lonely["change"].isna().all()
    assert set(lonely["verdict"]) == {"not testable with this data"}
    assert set(found.loc["bitfit"]["verdict"]) == {"baseline"}
    assert (found["chance"] == 0.5).all()
    assert ((found["low"] <= found["accuracy"]) & (found["accuracy"] <= found["high"])).all()


def test_a_grid_that_cannot_be_is_refused_before_the_first_run(encoder: Path) -> None:
    for change, problem in (
        ({"baseline": "none"}, "baseline 'none' is none of the variants"),
        ({"variants": {"bitfit": {"pretrained": "other", "qcross": {}}}}, "'other' is no name in pretraining"),
        ({"variants": {"bitfit": {"pretrained": "shared"}}}, "no qcross to put them in"),
        ({"variants": {"bitfit": {"optimization": {"epoch": 3}}}}, "epoch"),
        ({"seeds": []}, "seeds"),
    ):
        with pytest.raises(BabelScopeError, match=problem):
            read_ablation(grid(encoder, **change))


def test_bad_input_is_told_before_the_first_step(encoder: Path, queries: Path, tmp_path: Path) -> None:
    def refusal(config: dict) -> str:
        with pytest.raises(BabelScopeError) as caught:
            bs.train(config, tmp_path / "out")
        assert list(tmp_path.iterdir()) == []
        return str(caught.value)

    alone = {**record(encoder, "qcross"), "data": {**RULES, "languages": ["en"]}}
    assert "has no context and question in two languages" in refusal(alone)
    other = tiny.save_model(tmp_path / "other")
    config = record(other, "full", qcross={"source": str(queries)})
    with pytest.raises(BabelScopeError, match="whose weights are others"):
        bs.train(config, tmp_path / "out")
    (tmp_path / "text.txt").write_text("One line.\n")
    plain = {**record(other, "full", qcross={}), "data": {"text": [str(tmp_path / "text.txt")]}}
    with pytest.raises(BabelScopeError, match="which language each token is in"):
        bs.train(plain, tmp_path / "out")
    with pytest.raises(BabelScopeError, match="an adapter would leave its queries out"):
        train_config(record(encoder, "lora", qcross={}))
    with pytest.raises(BabelScopeError, match="there is nothing to train"):
        train_config(record(encoder, "qcross", qcross={"cross_query": False}))
    with pytest.raises(BabelScopeError, match=r"qcross\.keep_crs is no field"):
        train_config(record(encoder, "bitfit", qcross={"keep_crs": 1}))


def test_the_published_settings_are_presets() -> None:
    names = {n for n in presets() if n.startswith("qcross")}
    assert {"qcross-pretraining", "qcross-ruletaker", "qcross-ruletaker-baseline", "qcross-leap-of-thought"} <= names
    first, tuned = read_config("qcross-pretraining", "qcross"), read_config("qcross-ruletaker", "bitfit")
    assert (first.optimization.max_steps, first.optimization.batch, first.seed) == (500_000, 8, 57)
    assert (tuned.optimization.learning_rate, tuned.optimization.epochs, tuned.optimization.batch) == (4e-4, 35, 32)
    assert (tuned.qcross.keep_cross, tuned.qcross.keep_same_eval) == (0.3, 0.0)
    whole = read_ablation("ablation-qcross")
    assert len(whole.variants) == 8
    assert whole.run("qcross", 57, None).qcross.kept(training=True) == (0.0, 0.0)
    assert config_of(None) is None
