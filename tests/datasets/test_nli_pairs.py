"""Two texts of an inference item in two languages."""

import json

import pytest

from babelscope.datasets.load import load_prompts
from babelscope.datasets.nli_pairs import nli_pairs
from babelscope.errors import BabelScopeError

ITEMS = 60


def write(folder, language, items=ITEMS, label=lambda i: i % 3):
    lines = [json.dumps({"premise": f"{language} premise {i}.", "hypothesis": f"{language} claim {i}.",
                         "label": label(i)}) for i in range(items)]  # fmt: skip
    (folder / f"{language}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")


@pytest.fixture
def prompts(tmp_path):
    for language in ("en", "fr", "zh-Hant"):
        write(tmp_path, language)
    return load_prompts(tmp_path / "{language}.jsonl", mapping="xnli", languages=["en", "fr", "zh-Hant"])[0]


@pytest.mark.parametrize(("parallel", "second"), [(True, "premise"), (False, "claim")])
def test_a_pair_is_the_premise_and_the_premise_or_the_hypothesis_in_the_other_language(prompts, parallel, second):
    made = nli_pairs(prompts, ["en-fr", "zh-Hant-en"], parallel=parallel)
    assert made.languages == ("en-fr", "zh-Hant-en")
    assert made.items == prompts.items
    for code, a, b in (("en-fr", "en", "fr"), ("zh-Hant-en", "zh-Hant", "en")):
        for i, p in enumerate(made.of(code)):
            assert p.text == f"{a} premise {i}.\n{b} {second} {i}."
            assert (p.segment("context"), p.segment("question")) == tuple(p.text.split("\n"))
            assert [s.language for s in p.segments] == [a, b]
            assert p.covariates == {"label": i % 3}


def test_swapped_items_are_about_half_and_depend_on_nothing_but_the_item(prompts):
    made = nli_pairs(prompts, ["en-fr"], parallel=False, swap=True)
    turned = {p.item for p in made.of("fr-en")}
    assert {p.item for p in made.of("en-fr")} == set(prompts.items) - turned
    assert ITEMS / 4 < len(turned) < 3 * ITEMS / 4
    assert all(p.text.startswith("fr premise") for p in made.of("fr-en"))
    fewer = nli_pairs(prompts.select(limit=20), ["en-fr"], parallel=False, swap=True)
    assert {p.item for p in fewer.of("fr-en")} == turned & set(prompts.items[:20])
    assert {p.item for p in nli_pairs(prompts, ["en-fr"], swap=True, seed=1).of("fr-en")} != turned


def test_labels_that_differ_are_refused(tmp_path, prompts):
    write(tmp_path, "fr", label=lambda i: (i + (i == 7)) % 3)
    with pytest.raises(BabelScopeError, match="item '8' has label"):
        load_prompts(tmp_path / "{language}.jsonl", mapping="xnli")


@pytest.mark.parametrize(("code", "message"), [("en-en", "two languages"), ("en", "two languages"), ("en-de", "'de'")])
def test_codes_that_name_no_pair_of_the_set_are_refused(prompts, code, message):
    with pytest.raises(BabelScopeError, match=message):
        nli_pairs(prompts, [code])


def test_prompts_without_a_premise_are_refused(tmp_path, prompts):
    other = load_prompts(tmp_path / "{language}.jsonl", mapping={"key": "row", "text": "{hypothesis}"})[0]
    with pytest.raises(BabelScopeError, match="item '1' in 'en' has no segment 'premise'"):
        nli_pairs(other, ["en-fr"])


def test_files_of_the_original_release_are_read_by_a_mapping(tmp_path):
    lines = ["language\tgold_label\tsentence1\tsentence2\tpairID"]
    lines += [f'{g}\tneutral\t{g} "one\t{g} two\t{i}' for g in ("en", "fr") for i in range(3)]
    (tmp_path / "xnli.dev.tsv").write_text("\n".join(lines) + "\n", "utf-8")
    mapping = {"key": "pairID", "text": "{sentence1:premise}\n{sentence2:hypothesis}", "quotes": False,
               "covariates": {"label": "gold_label"}}  # fmt: skip
    made = nli_pairs(load_prompts(tmp_path / "xnli.dev.tsv", mapping=mapping)[0], ["fr-en"], parallel=False)
    assert [p.text for p in made.prompts] == ['fr "one\nen two'] * 3
