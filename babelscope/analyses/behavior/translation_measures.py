"""Scores of translations by what sacrebleu and COMET compute for each sentence."""

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from babelscope.analyses.statistics import Floats
from babelscope.errors import BabelScopeError

# Shuffles of the references; each scores every item again.
PERMUTATIONS = 99

# Tokenizers of sacrebleu for languages that put no spaces between words; others are split at spaces and marks.
UNSPACED = {"zh": "zh", "ja": "ja-mecab", "th": "char", "lo": "char", "km": "char", "my": "char"}
DEFAULT_TOKENIZER = "13a"


class Measure(Protocol):
    """A score of a corpus that is a function of sums over its items."""

    name: str
    permutations: int

    def rows(self, outputs: Sequence[str], sources: Sequence[str], references: Sequence[str]) -> Floats:
        """(item, statistic): what is summed."""
        ...

    def score(self, sums: Floats) -> float:
        """The score of one row of sums, (statistic,)."""
        ...

    def signature(self) -> str:
        """What was computed exactly, once something has been."""
        ...


def sacrebleu_measures(target: str) -> tuple[Measure, ...]:
    """The chrF and BLEU of sacrebleu for outputs in a language; BabelScopeError where it is not installed."""
    if importlib.util.find_spec("sacrebleu") is None:
        raise BabelScopeError("sacrebleu is not installed", "pip install 'babelscope[translation]'")
    metrics = importlib.import_module("sacrebleu.metrics")
    bleu = metrics.BLEU(tokenize=tokenizer_of(target), force=True)  # outputs may end in " ." as they like
    return Sacrebleu("chrF", metrics.CHRF()), Sacrebleu("BLEU", bleu)


def tokenizer_of(language: str) -> str:
    """The tokenizer of sacrebleu for a language; characters for Japanese where its own is not installed."""
    found = UNSPACED.get(language.replace("_", "-").partition("-")[0], DEFAULT_TOKENIZER)
    return "char" if found == "ja-mecab" and importlib.util.find_spec("MeCab") is None else found


class Sacrebleu:
    """A metric of sacrebleu by the statistics of its sentences, which resamples can add up."""

    permutations = PERMUTATIONS

    def __init__(self, name: str, metric: Any) -> None:
        self.name, self.metric = name, metric

    def rows(self, outputs: Sequence[str], sources: Sequence[str], references: Sequence[str]) -> Floats:
        """(item, statistic): what is summed."""
        self.metric.corpus_score(outputs[:1], [references[:1]])  # a signature names the number of references
        found: NDArray[np.float64] = np.array(
            self.metric._extract_corpus_statistics(outputs, [references]), dtype=np.float64
        )
        return found

    def score(self, sums: Floats) -> float:
        """The score of one row of sums, (statistic,)."""
        return float(self.metric._compute_score_from_stats([round(float(s)) for s in sums]).score)

    def signature(self) -> str:
        """What was computed exactly."""
        return str(self.metric.get_signature())


class Comet:
    """COMET of a checkpoint on this disk."""

    name = "COMET"
    permutations = 1

    def __init__(self, checkpoint: str) -> None:
        if importlib.util.find_spec("comet") is None:
            raise BabelScopeError("COMET is not installed", "pip install unbabel-comet, or leave out --comet")
        if not Path(checkpoint).is_file():
            raise BabelScopeError(
                f"there is no COMET checkpoint {checkpoint}",
                "name the file checkpoints/model.ckpt of a model that was downloaded before",
            )
        self.checkpoint = checkpoint
        self.model = importlib.import_module("comet").load_from_checkpoint(checkpoint)

    def rows(self, outputs: Sequence[str], sources: Sequence[str], references: Sequence[str]) -> Floats:
        """(item, statistic): what is summed."""
        data = [{"src": s, "mt": o, "ref": r} for o, s, r in zip(outputs, sources, references, strict=True)]
        scores = np.array(self.model.predict(data, gpus=0).scores, dtype=np.float64)
        return np.stack([scores, np.ones_like(scores)], axis=1)

    def score(self, sums: Floats) -> float:
        """The score of one row of sums, (statistic,)."""
        return float(sums[0] / sums[1]) if sums[1] else float("nan")

    def signature(self) -> str:
        """What was computed exactly."""
        return self.checkpoint
