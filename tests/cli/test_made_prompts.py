"""Mixed texts and translation prompts from the command line, captured and analyzed by a tiny model."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from tests.cli.conftest import Finished

Cli = Callable[..., Finished]


def test_mixed_texts_are_written_captured_and_compared(cli: Cli, tiny_model: Path) -> None:
    made = cli("data", "perturb", "knowledge-bare", "mixed.jsonl", "--limit", 8, "--vocabulary", tiny_model)
    assert made.code == 0, made.err
    assert "8 items as en, mixed, random-token, dropped, wrong-word, same-language" in made.out
    assert "asked for 0.16" in " ".join(made.err.split())
    again = cli("data", "perturb", "knowledge-bare", "mixed.jsonl", "--limit", 8)
    assert again.code == 1
    assert "--overwrite" in again.err
    sites = ("--site", "resid.post", "--position", "mean", "--position", "last")
    captured = cli("capture", "run.acts", "--model", tiny_model, "--prompts", "mixed.jsonl", *sites)
    assert captured.code == 0, captured.err
    analyzed = cli("analyze", "run.acts", "--recipe", "embedding-shift", "--out", "result")
    assert analyzed.code == 0, analyzed.err
    assert "mixed is closer than every control" in analyzed.out
    table = pd.read_parquet("result/tables/embedding_shift_cosines.parquet")
    assert set(table["position"]) == {"mean", "last"}
    assert (table["n"] == 8).all()


def test_a_lexicon_of_ones_own_and_random_words_without_a_vocabulary(cli: Cli) -> None:
    Path("words.tsv").write_text("en\tfr\ncapital\tcapitale\ncountry\tpays\ncurrency\tmonnaie\n", "utf-8")
    made = cli("data", "perturb", "knowledge-bare", "mixed.jsonl", "--lexicon", "words.tsv", "--limit", 12,
               "--translate-rate", 0.1, "--replace-rate", 0.3)  # fmt: skip
    assert made.code == 0, made.err
    said = " ".join(made.err.split())
    assert "random words of these texts" in said
    assert "left out" in said
    assert "asked for 0.3" in said
    assert "What is its capitale?" in cli("data", "show", "mixed.jsonl", "--languages", "mixed", "--limit", 12).out
    assert cli("data", "perturb", "knowledge-bare", "no.jsonl", "--lexicon", "none.tsv").code == 1
    assert not Path("no.jsonl").exists()


def test_translation_prompts_are_written_captured_and_evaluated(cli: Cli, tiny_model: Path) -> None:
    made = cli("data", "translation", "knowledge-bare", "asked.jsonl", "--pairs", "en-de,de-en", "--shots", 1,
               "--limit", 8)  # fmt: skip
    assert made.code == 0, made.err
    assert "8 items in en-to-de, de-to-en" in made.out
    assert "Translate from German into English." in cli("data", "show", "asked.jsonl", "--languages", "de-to-en").out
    options = ("--site", "resid.post@0", "--continue", 4)
    captured = cli("capture", "run.acts", "--model", tiny_model, "--prompts", "asked.jsonl", *options)
    assert captured.code == 0, captured.err
    found = cli("evaluate", "run.acts")
    assert found.code == 0, found.err
    assert "en-to-de" in found.out
    table = pd.read_parquet("run.acts.evaluation/tables/translation.parquet")
    assert set(table["measure"]) == {"chrF", "BLEU"}
    assert (table["n"] == 8).all()
    refused = cli("evaluate", "run.acts", "--overwrite", "--comet", "none.ckpt")
    assert refused.code == 1
    assert "hint: pip install unbabel-comet" in " ".join(refused.err.split())


def test_mixed_questions_are_written_captured_by_setting_and_evaluated(cli: Cli, tiny_model: Path) -> None:
    assert cli("data", "generate", "kfrd-arithmetic", "demos.jsonl", "--split", "train", "--items", 32).code == 0
    made = cli("data", "mix-choice", "kfrd-arithmetic", "mixed.jsonl", "--languages", "en,de,fr", "--limit", 8,
               "--settings", "gt_question,threewrong,mixup", "--mitigation", "awareness-1", "--mitigation",
               "same-shots", "--shots", 1, "--demos", "demos.jsonl")  # fmt: skip
    assert made.code == 0, made.err
    assert "mixed.jsonl: 8 items in 18 settings" in made.out
    rows = {line.split()[0]: line.split()[1:] for line in made.out.splitlines()[1:-1]}
    assert rows["en"] == ["8", "0", "–", "0"]
    # Questions differ from English and numbers do not, but in two lists: French has a narrow space before a semicolon.
    assert rows["gt_question_de"] == ["8", "16", "0.500", "8"]
    assert rows["threewrong_fr+awareness-1"] == ["8", "24", "0.250", "2"]
    codes = "en,gt_question_de,threewrong_fr+awareness-1,mixup+same-shots"
    captured = cli("capture", "run.acts", "--model", tiny_model, "--prompts", "mixed.jsonl", "--languages", codes,
                   "--site", "resid.post@0")  # fmt: skip
    assert captured.code == 0, captured.err
    shards = {path.name for path in Path("run.acts/shards").iterdir()}
    assert shards == {f"l-{code}" for code in codes.split(",")}
    found = cli("evaluate", "run.acts")
    assert found.code == 0, found.err
    accuracy = pd.read_parquet("run.acts.evaluation/tables/accuracy.parquet")
    assert set(accuracy["language"]) == {*codes.split(",")}
    assert (accuracy["n"] == 8).all()
    refused = cli("data", "mix-choice", "kfrd-arithmetic", "no.jsonl", "--languages", "en,de", "--settings", "gold")
    assert refused.code == 1
    assert "no setting called 'gold'" in refused.err
