"""What a trained classifier answers."""

from collections.abc import Callable

import pandas as pd
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from babelscope.qcross.injection import config_of
from babelscope.qcross.saving import restore
from babelscope.schema import PromptSet
from babelscope.training.collate import Collate
from babelscope.training.examples import classes
from babelscope.training.methods import context_of, quiet

BATCH = 32


def classified(
    folder: str, prompts: PromptSet, progress: Callable[[int, int, str], None] | None = None
) -> pd.DataFrame:
    """The class that a classifier gives each prompt, languages and cross-lingual queries included.

    Parameters
    ----------
    folder : str
        That `train` wrote; or any folder or hub id of a model with a classifier on its first token.

    Returns
    -------
    DataFrame
        item, language, gold, n_options, choice, correct (1.0 or 0.0), in the order of the prompts.

    Raises
    ------
    BabelScopeError
        If a prompt has no gold option, or is longer than the model reads.
    """
    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForSequenceClassification.from_pretrained(folder)
    if config_of(model) is not None:
        restore(model, folder)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.eval().to(device)
    rows = classes(prompts, tokenizer, context_of(model) or 1 << 20, "refuse").rows
    collate = Collate(tokenizer.pad_token_id or 0, config_of(model) is not None)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
    choice = [0] * len(rows)
    for start in range(0, len(order), BATCH):
        places = order[start : start + BATCH]
        batch = {name: x.to(device) for name, x in collate([rows[i] for i in places]).items() if name != "labels"}
        with torch.inference_mode():
            best = model(**batch).logits.argmax(-1).tolist()
        for place, chosen in zip(places, best, strict=True):
            choice[place] = chosen
        if progress is not None:
            progress(start + len(places), len(rows), "classify")
    table = pd.DataFrame({
        "item": [p.item for p in prompts.prompts], "language": [p.language for p in prompts.prompts],
        "gold": [p.gold for p in prompts.prompts],
        "n_options": [len(p.options or p.letters) for p in prompts.prompts], "choice": choice,
    })  # fmt: skip
    return table.assign(correct=(table["gold"] == table["choice"]).astype(float))
