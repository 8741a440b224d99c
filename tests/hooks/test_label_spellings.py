"""Labels are scored in each spelling by the token that the tokenizer has for it, or not at all and with a reason."""

from collections.abc import Callable

import model_zoo
import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from babelscope.hooks import LoadedModel, make_plan, run_plan
from babelscope.hooks.answers import AnswerSheet
from babelscope.hooks.label_spellings import spelled_tokens, token_written
from babelscope.schema import SPELLINGS, Block, Prompt, PromptSet
from babelscope.schema.captured import NO_OPTION, NOT_ONE_TOKEN, UNKNOWN_TOKEN, spelling_problem

Load = Callable[[str], LoadedModel]
BARE, SPACED, LAST = range(3)


def sentencepiece(*, ends: bool = False) -> PreTrainedTokenizerFast:
    """One that puts a space before every text, as Llama 2's and T5's do; `ends` puts </s> behind it."""
    pieces = ["<unk>", "</s>", "\u2581", "A", "B", "\u2581A", "\u2581B", "\u2581C"]
    raw = Tokenizer(models.Unigram([(piece, -1.0 - i / 10) for i, piece in enumerate(pieces)], unk_id=0))
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    if ends:
        raw.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", eos_token="</s>")


def words(*, known: tuple[str, ...]) -> PreTrainedTokenizerFast:
    """One whole word a token, without any mark of the space."""
    raw = Tokenizer(models.WordLevel({"<unk>": 0, **{word: i + 1 for i, word in enumerate(known)}}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>")


def test_in_byte_level_bpe_the_encoded_letter_is_the_bare_one() -> None:
    tokenizer = model_zoo.tokenizer(special=False)
    found = spelled_tokens(tokenizer, ("A", "B"), 3)
    assert tokenizer.convert_ids_to_tokens(found[:2, BARE].tolist()) == ["A", "B"]
    assert found[:2, LAST].tolist() == found[:2, BARE].tolist()
    single = [tokenizer(f" {x}")["input_ids"] for x in "AB"]
    assert found[:2, SPACED].tolist() == [ids[0] if len(ids) == 1 else NOT_ONE_TOKEN for ids in single]
    assert (found[2] == NO_OPTION).all()


def test_in_sentencepiece_the_encoded_letter_is_the_one_behind_a_space() -> None:
    tokenizer = sentencepiece()
    found = spelled_tokens(tokenizer, ("A", "B"), 2)
    written = [[tokenizer.convert_ids_to_tokens(int(i)) for i in row] for row in found]
    assert written == [["A", "\u2581A", "\u2581A"], ["B", "\u2581B", "\u2581B"]]


def test_the_last_token_may_end_texts_and_then_tells_nothing_apart() -> None:
    found = spelled_tokens(sentencepiece(ends=True), ("A", "B"), 2)
    assert found[:, LAST].tolist() == [1, 1]
    assert spelling_problem(found[:, LAST]) == "labels share a token in this spelling"
    assert not spelling_problem(found[:, SPACED])


def test_a_label_of_several_tokens_or_none_is_a_reason() -> None:
    found = spelled_tokens(sentencepiece(), ("A", "C"), 2)
    assert found[1, BARE] == NOT_ONE_TOKEN  # C stands behind a space alone
    assert "not one token" in spelling_problem(found[:, BARE])
    found = spelled_tokens(words(known=("A",)), ("A", "Z"), 2)
    assert found[1, BARE] == found[1, LAST] == UNKNOWN_TOKEN
    assert "unknown token" in spelling_problem(found[:, LAST])
    assert (found[:, SPACED] == NOT_ONE_TOKEN).all()  # nothing in the vocabulary has a space
    assert spelling_problem(np.array([NO_OPTION, NO_OPTION])) == ""


def test_an_undefined_spelling_has_no_scores_and_the_others_have() -> None:
    tokenizer = sentencepiece()
    tokenizer.add_tokens([AddedToken("Z")])
    prompts = [Prompt("a", "en", "?", letters=("A", "C"), gold=0), Prompt("b", "en", "?"),
               Prompt("c", "en", "?", letters=("A",), gold=0)]  # fmt: skip
    sheet = AnswerSheet(tokenizer, prompts, 2, spellings=True)
    sheet.fill([0, 1, 2], torch.arange(9.0).repeat(3, 1))
    answers = sheet.done()
    assert answers.label_scores is not None
    assert answers.label_scores.dtype == np.float32
    defined = ~np.isnan(answers.label_scores)
    assert defined[0].tolist() == [[False, True, True], [False, True, True]]
    assert not defined[1].any()
    assert defined[2].tolist() == [[True] * 3, [False] * 3]
    logp = torch.arange(9.0).log_softmax(-1)
    assert answers.label_scores[0, :, SPACED].tolist() == logp[[5, 7]].tolist()


@pytest.mark.parametrize("backend", ["torch", "transformer-lens", "nnsight"])
def test_every_backend_scores_every_spelling_as_the_full_logits_do(
    backend: str, load: Load, prompts: PromptSet
) -> None:
    loaded = load("llama")
    plan = make_plan(loaded, prompts, sites=["resid.post@-1"], positions=["last"], backend=backend, block_items=8)
    assert plan.spellings
    blocks: list[Block] = list(run_plan(plan, loaded, prompts, plan.blocks))
    checked = 0
    for block in blocks:
        for row, item in enumerate(block.items):
            prompt = prompts.of(block.language)[item]
            ids = torch.tensor([loaded.tokenizer(prompt.text)["input_ids"]])
            with torch.no_grad():
                logp = loaded.model(input_ids=ids).logits[0, -1].float().log_softmax(-1).numpy()
            assert block.answers is not None
            tokens, scores = block.answers.label_tokens[row], block.answers.label_scores[row]
            for spelling in range(len(SPELLINGS)):
                if spelling_problem(tokens[:, spelling]):
                    assert np.isnan(scores[:, spelling]).all()
                    continue
                known = tokens[:, spelling] != NO_OPTION
                np.testing.assert_allclose(scores[known, spelling], logp[tokens[known, spelling]], atol=2e-5)
                checked += 1
            both = ~np.isnan(scores[:, :2]).all(axis=1)  # the better of the two is what `labels` counts
            np.testing.assert_allclose(block.answers.scores[row][both], np.nanmax(scores[both, :2], axis=1), atol=1e-6)
    assert checked


@pytest.mark.parametrize("made", [sentencepiece, lambda: model_zoo.tokenizer(special=True), ByT5Tokenizer])
def test_a_token_is_known_by_what_is_written_as_the_vocabulary_has_it(made) -> None:
    tokenizer = made()
    vocabulary = tokenizer.get_vocab()
    assert {text: token_written(tokenizer, text) for text in vocabulary} == vocabulary
    for text in ("xyzzy", "", "答", "A B"):  # one would be <unk>, another an identifier beyond the last
        assert text not in vocabulary
        assert token_written(tokenizer, text) is None
