"""What is left of the answers when some neurons hold other values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from babelscope.hooks.interventions.attribution import answer_margin
from babelscope.hooks.interventions.batch import read_prompts
from babelscope.hooks.interventions.editing import edited
from babelscope.hooks.interventions.edits import Edit
from babelscope.hooks.interventions.effects import next_logits, option_scores
from babelscope.hooks.models import LoadedModel
from babelscope.schema import Position, Prompt, Site

BATCH = 64


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """How prompts are answered.

    Parameters
    ----------
    margin : ndarray of float64
        (prompt,) logit of the gold option's label minus the mean of the others, nats.
    correct : ndarray of bool
        (prompt,) whether the gold option scores highest.
    """

    margin: NDArray[np.float64]
    correct: NDArray[np.bool_]


def answered(
    loaded: LoadedModel, prompts: Sequence[Prompt], replaced: Mapping[Site, tuple[Sequence[int], NDArray[np.floating]]]
) -> Answered:
    """Answers with some units at the last token set to given values; as the model is where `replaced` is empty.

    Zero ablation sets zeros, mean ablation a mean row for all prompts of a language, resampling a row of another item,
    patching the row of the same item in another language.

    Parameters
    ----------
    replaced : mapping
        Site -> (units, values (prompt, unit) or (unit,)), with a value for each unit that is named.

    Raises
    ------
    BabelScopeError
        As `answer_margin` and `edited`.
    """
    margins, correct = [], []
    chosen = {
        site: (tuple(int(u) for u in units), np.broadcast_to(values, (len(prompts), len(units))))
        for site, (units, values) in replaced.items()
        if len(units)
    }
    for start in range(0, len(prompts), BATCH):
        batch = read_prompts(loaded, prompts[start : start + BATCH])
        rows = slice(start, start + len(batch.prompts))
        edits = {site: _set(units, values[rows]) for site, (units, values) in chosen.items()}
        score = answer_margin(loaded, batch)
        with torch.no_grad(), edited(loaded, edits, batch):
            logits = next_logits(loaded, batch)
        margins.append(score(logits).double().cpu().numpy())
        best = np.nan_to_num(option_scores(loaded, batch, logits).double().cpu().numpy(), nan=-np.inf).argmax(axis=1)
        correct.append(best == np.array([p.gold for p in batch.prompts]))
    return Answered(np.concatenate(margins), np.concatenate(correct))


def _set(units: tuple[int, ...], values: NDArray[np.floating]) -> Edit:
    new = torch.from_numpy(np.array(values))  # a copy: what was broadcast cannot be written to
    return Edit(lambda rows: new.to(rows), Position.parse("last"), units)
