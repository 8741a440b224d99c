"""The audit sees planted biases and is quiet without them."""

import numpy as np
import pytest
from scipy.stats import binomtest

from babelscope.datasets.audit import audit
from babelscope.datasets.generators.kfrd_logical import KfrdLogical
from babelscope.datasets.generators.knowledge import Knowledge
from babelscope.datasets.shortcuts import SHORTCUTS, expected_accuracy
from babelscope.datasets.text_units import sentences, words
from babelscope.errors import BabelScopeError
from babelscope.schema import Prompt, PromptSet, Segment

N = 200


def a_prompt(i, options, gold, language="en", question="Which one is it?", **covariates):
    text = question + "\n" + "\n".join(options)
    segments = (Segment("question", 0, len(question), language), Segment("options", len(question), len(text), language))
    return Prompt(str(i), language, text, segments, ("A", "B", "C", "D"), options, gold, options[gold], covariates)


def random_words(rng, n, length=5):
    return tuple("".join(rng.choice(list("aeioubdgklmnprst"), length)) for _ in range(n))


def a_set(change=lambda options, gold, rng: options, language="en"):
    """Items with four random options, changed by `change`."""
    rng = np.random.default_rng(7)
    prompts = []
    for i in range(N):
        gold = int(rng.integers(4))
        prompts.append(a_prompt(i, tuple(change(list(random_words(rng, 4)), gold, rng)), gold, language))
    return PromptSet("planted", tuple(prompts))


def lengthened(options, gold, rng):
    return [o + "aaa" if i == gold else o for i, o in enumerate(options)]


def never_longest(options, gold, rng):
    wrong = int(rng.choice([i for i in range(4) if i != gold]))
    return [o + "aaa" if i == wrong else o for i, o in enumerate(options)]


def favored(options, gold, rng):
    return [f"sunny {o}" if i == gold else f"rainy {o}" for i, o in enumerate(options)]


def row(table, heuristic, rule="all"):
    found = table[(table.heuristic == heuristic) & (table.rule == rule)]
    assert len(found) == 1
    return found.iloc[0]


def test_nothing_is_flagged_where_nothing_is_planted():
    assert not audit(a_set()).flag.any()


@pytest.mark.parametrize(
    ("change", "heuristic", "accuracy"),
    [(lengthened, "longest_option", 1.0), (never_longest, "longest_option", 0.0), (favored, "options_only", 1.0)],
)
def test_a_planted_bias_is_flagged(change, heuristic, accuracy):
    found = row(audit(a_set(change)), heuristic)
    assert found.flag
    assert found.accuracy == pytest.approx(accuracy)
    assert found.chance == 0.25


def test_the_weaker_the_bias_the_lower_the_accuracy():
    def sometimes(share):
        return lambda options, gold, rng: lengthened(options, gold, rng) if rng.random() < share else options

    found = [row(audit(a_set(sometimes(share))), "longest_option").accuracy for share in (0.0, 0.3, 0.6, 0.9)]
    assert found == sorted(found)
    assert found[-1] > 0.85


def test_repeated_options_are_counted_and_flagged():
    found = row(audit(a_set(lambda options, gold, rng: [options[0], options[0], *options[2:]])), "repeated_options")
    assert found.accuracy == 1.0
    assert found.flag


def test_items_whose_right_option_does_not_follow_are_flagged():
    made = KfrdLogical(items=12).generate(["en"])
    wrong = [
        Prompt(
            p.item,
            p.language,
            p.text,
            p.segments,
            p.letters,
            p.options,
            (p.gold + (i == 0)) % 4,
            p.answer,
            p.covariates,
        )
        for i, p in enumerate(made.prompts)
    ]
    found = row(audit(PromptSet("wrong", tuple(wrong))), "no_single_answer")
    assert found.accuracy == pytest.approx(1 / 12)
    assert found.flag


def test_the_corrected_logical_task_passes_and_the_published_one_does_not():
    corrected, published = (
        audit(KfrdLogical(items=600, split="train", compat=c).generate(["en"])) for c in ("corrected", "paper")
    )
    assert not corrected[corrected.rule == "all"].flag.any()
    assert {"word_overlap", "no_single_answer", "repeated_options"} <= set(published[published.flag].heuristic)


def test_every_language_and_rule_has_its_rows():
    table = audit(KfrdLogical(items=60).generate(["en", "zh"]))
    assert set(table.language) == {"en", "zh"}
    counted = table[(table.rule == "all") & (table.heuristic == "longest_option")]
    assert counted.n.tolist() == [60, 60]
    assert table[table.rule == "chain"].empty
    assert table.rule.nunique() == 7


def test_the_interval_is_wilsons():
    found = row(audit(a_set(never_longest)), "longest_option")
    expected = binomtest(0, N).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_options_that_are_each_right_once_tell_nothing():
    # Blocks of four items share their options: three answers tell the fourth, unless blocks stay together.
    rng = np.random.default_rng(3)
    blocks = [random_words(rng, 4) for _ in range(50)]
    prompts = [a_prompt(f"{b}-{g}", options, g) for b, options in enumerate(blocks) for g in range(4)]
    assert row(audit(PromptSet("blocks", tuple(prompts))), "options_only").accuracy == pytest.approx(0.25)


def test_options_of_signs_alone_have_no_words_to_learn_from():
    signs = tuple(a_prompt(i, ("<" * (i + 1), ">", "=", "~"), i % 4) for i in range(8))
    mixed = tuple(a_prompt(i, (f"<{i}", *"><="), i % 4) for i in range(8))
    assert "options_only" not in set(audit(PromptSet("signs", signs)).heuristic)
    assert "options_only" in set(audit(PromptSet("mixed", mixed)).heuristic)


@pytest.mark.parametrize(
    ("task", "text"),
    [
        ("arithmetic", "one line"),
        ("arithmetic", "Solve.\nRule: modulo. Input: 7; 3.\nA) 1\nB) 2"),
        ("arithmetic", "Solve.\nRule: addition. Input: 7; 3.\n1. 10\n2. 11"),
        ("symbolic", "one line"),
        ("symbolic", "Solve.\nList: a, b. Step 1: leave the list unchanged.\n1. a, b\n2. b, a"),
        ("logical", "one line"),
    ],
)
def test_own_prompts_under_the_name_of_our_task_raise_no_alarm(task, text):
    options = ("Tom is tall.", "Tom is thin.")
    prompts = (Prompt("1", "en", text, options=options, gold=0, covariates={"task": task}),)
    assert "no_single_answer" not in set(audit(PromptSet("own", prompts)).heuristic)


def test_open_questions_are_refused():
    open_questions = PromptSet("open", (Prompt("1", "en", "Who?"),))
    with pytest.raises(BabelScopeError, match="no item with options"):
        audit(open_questions)


def test_a_single_item_is_audited_without_what_must_be_learned():
    table = audit(PromptSet("one", a_set().prompts[:1]))
    assert "options_only" not in set(table.heuristic)
    assert row(table, "longest_option").n == 1


def test_what_is_learned_is_judged_on_the_other_half():
    table = audit(a_set())
    assert row(table, "options_only").n == row(table, "gold_position").n == N // 2


def test_a_favorite_letter_is_flagged():
    made = a_set()
    first = tuple(a_prompt(p.item, p.options, 0 if i % 2 else p.gold) for i, p in enumerate(made.prompts))
    assert row(audit(PromptSet("letters", first)), "gold_position").flag


def test_independent_answers_rarely_raise_an_alarm():
    # At most 5 % of tables may hold a false flag; of 40, more than 7 would have a probability below 0.1 %.
    rng = np.random.default_rng(11)
    alarms = 0
    for _ in range(40):
        prompts = []
        for i in range(80):
            a, b = random_words(rng, 2, length=2)
            c, d = random_words(rng, 2, length=2)
            prompts.append(a_prompt(i, (f"{a} {c}", f"{a} {d}", f"{b} {c}", f"{b} {d}"), int(rng.integers(4))))
        table = audit(PromptSet("null", tuple(prompts)))
        alarms += bool(table[table.chance > 0].flag.any())
    assert alarms <= 7


def test_prompts_without_segments_are_read_up_to_their_options():
    plain = Prompt("1", "en", "Tom saw Ann.\nA) Ann\nB) Bob", options=("Ann", "Bob"), gold=0)
    assert list(SHORTCUTS["word_overlap"](plain)) == [1, 0]


def test_prompts_with_segments_of_other_names_are_read_up_to_their_options():
    text = "Tom saw Ann.\nA) Ann\nB) Bob\nAnswer Bob:"
    spans = (Segment("story", 0, 12, "en"), Segment("options", 13, 26, "en"), Segment("cue", 27, len(text), "en"))
    prompt = Prompt("1", "en", text, spans, options=("Ann", "Bob"), gold=0)
    assert list(SHORTCUTS["word_overlap"](prompt)) == [1, 0]
    no_options = Prompt("1", "en", text[:26], spans[:1], options=("Ann", "Bob"), gold=0)
    assert list(SHORTCUTS["word_overlap"](no_options)) == [1, 0]


def test_the_beginning_is_compared_with_the_subject_of_a_fact_or_a_segment():
    options = ("Französisch", "Frei", "Latein", "íslenska")
    ours = a_prompt(1, options, 0, language="fr", fact="countries:iceland")
    text = "Which is the language of Fránce?"
    own = Prompt("1", "en", text, (Segment("subject", 25, 31, "en"),), options=options, gold=0)
    assert list(SHORTCUTS["shared_prefix"](ours)) == [0, 0, 0, 3]
    assert list(SHORTCUTS["shared_prefix"](own)) == [4, 2, 0, 0]
    assert SHORTCUTS["shared_prefix"](a_prompt(1, options, 0, fact="my own fact")) is None


def test_languages_that_resemble_their_country_are_flagged():
    table = audit(Knowledge(items=0).generate(["fr", "sw"]))
    found = table[(table.heuristic == "shared_prefix") & table.flag].set_index(["language", "rule"]).accuracy
    assert found["fr", "official_language"] == pytest.approx(0.84, abs=0.005)
    assert ("sw", "official_language") not in found


def test_ties_share_the_point():
    assert expected_accuracy([1, 1, 0, 1], 0) == pytest.approx(1 / 3)
    assert expected_accuracy([1, 1, 0, 1], 2) == 0


# Each worked by hand.
@pytest.mark.parametrize(
    ("shortcut", "question", "options", "scores"),
    [
        ("closest_to_others", "?", ("10", "20", "30", "100"), [-120, -100, -100, -240]),
        ("closest_to_others", "?", ("a b", "a c", "d c", "e f"), [-5, -4, -5, -6]),
        ("units_digit", "Input: 17; 25.", ("42", "43", "52", "41"), [1, 0, 1, 0]),
        ("digit_overlap", "Input: 12; 34.", ("13", "15", "66", "11"), [1, 0.5, 0, 0.5]),
        ("word_overlap", "Tom is tall. Ann is tall.", ("Tom is tall", "Bob is tall"), [3, 2]),
        ("word_frequency", "Tom is tall. Ann is tall.", ("Tom is tall", "Bob is tall"), [5, 4]),
        ("sentence_overlap", "Tom is tall. Ann is thin.", ("Tom is thin", "Ann is thin", "Tom is tall"), [1, 2, 2]),
    ],
)
def test_shortcuts_score_as_worked_by_hand(shortcut, question, options, scores):
    prompt = a_prompt(1, options, 0, question=question, rule="addition")
    assert list(SHORTCUTS[shortcut](prompt)) == scores


def test_words_and_sentences_are_found_in_every_script():
    assert words("Вася, «смел»!") == ("вася", "смел")
    assert words("アダムは勇敢です。")[:3] == ("ア", "ダ", "ム")
    assert words("आदम बहादुर है।") == ("आदम", "बहादुर", "है")
    assert words("آدم شجاع وذكي") == ("آدم", "شجاع", "و", "ذكي")
    assert len(sentences("पहला। दूसरा।")) == 2
    assert len(sentences("第一。第二。")) == 2
