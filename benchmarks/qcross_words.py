"""Whether cross-lingual queries find a word's counterpart: masked words of the second text of a pair, predicted right.

Each pair is a theory of two facts in English and the same theory in another language. One name, or one property, of the
second text is masked. `shuffled` puts the English text of another theory beside it: what is left there is known
without the counterpart. Wilson 95 % intervals; chance is one name of 12, one property of 48.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from statsmodels.stats.proportion import proportion_confint
from transformers import AutoModelForMaskedLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

import babelscope as bs
from babelscope.datasets.nli_pairs import nli_pairs
from babelscope.datasets.words import wording
from babelscope.qcross.config import QcrossConfig
from babelscope.qcross.injection import inject
from babelscope.qcross.saving import load_cross
from babelscope.schema import PromptSet
from babelscope.training.examples import Example, pairs
from babelscope.workflows import model_path


def rows_of(tokenizer: PreTrainedTokenizerBase, language: str, n: int, *, shuffled: bool) -> Sequence[Example]:
    """The pairs en-LANGUAGE as tokens; the first text is that of the next theory where they are shuffled."""
    prompts = bs.generate("ruletaker", items=n, max_depth=0, languages=["en", language])
    if shuffled:
        english = prompts.of("en")
        moved = (
            replace(other, item=p.item, gold=p.gold, covariates=p.covariates)
            for p, other in zip(english, english[1:] + english[:1], strict=True)
        )
        prompts = PromptSet(prompts.name, (*moved, *prompts.of(language)), prompts.source)
    joined = nli_pairs(prompts, [f"en-{language}"], texts=("context", "context"))
    return pairs(joined, tokenizer, 512, "refuse").rows


def masked(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Example], words: frozenset[int]
) -> Iterator[tuple[list[int], int, Example]]:
    """Tokens with the first such word of the second text masked, and where."""
    for row in rows:
        second = row.ids.index(tokenizer.sep_token_id) + 1
        at = next((i for i in range(second, len(row.ids)) if row.ids[i] in words), None)
        if at is not None:
            ids = list(row.ids)
            ids[at] = tokenizer.mask_token_id
            yield ids, at, row


def right(model: PreTrainedModel, found: Sequence[tuple[list[int], int, Example]], *, languages: bool) -> int:
    """How many of the masked words are predicted."""
    n = 0
    for ids, at, row in found:
        inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
        if languages:
            inputs["language_ids"] = torch.tensor([row.languages])
        with torch.inference_mode():
            n += int(model(**inputs).logits[0, at].argmax()) == row.ids[at]
    return n


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("queries", help="folder that `train qcross` wrote for the model")
    parser.add_argument("--model", default="encoder-organism")
    parser.add_argument("--languages", nargs="+", default=["fr", "de", "zh"])
    parser.add_argument("-n", type=int, default=240)
    options = parser.parse_args()
    source = model_path(options.model)
    tokenizer = AutoTokenizer.from_pretrained(source)
    models = {name: AutoModelForMaskedLM.from_pretrained(source).eval() for name in ("none", "copied", "trained")}
    inject(models["copied"], QcrossConfig())
    load_cross(models["trained"], options.queries)
    print("language  word      queries  pairs       n  right")
    for language in options.languages:
        words = {"name": wording(language).names, "property": wording(language).adjectives}
        for kind, named in words.items():
            one = {tokenizer.tokenize(word)[0] for word in named.values() if len(tokenizer.tokenize(word)) == 1}
            ids = frozenset(tokenizer.convert_tokens_to_ids(sorted(one)))
            for shuffled in (False, True):
                rows = rows_of(tokenizer, language, options.n, shuffled=shuffled)
                found = list(masked(tokenizer, rows, ids))
                for name, model in models.items():
                    n_right = right(model, found, languages=name != "none")
                    low, high = proportion_confint(n_right, len(found), method="wilson") if found else (0, 1)
                    share = f"{n_right / len(found):.3f} [{low:.3f}, {high:.3f}]" if found else "no such token"
                    how = "shuffled" if shuffled else "matched"
                    print(f"{language:<9} {kind:<9} {name:<8} {how:<9} {len(found):>4}  {share}", flush=True)


if __name__ == "__main__":
    main()
