"""Difference of means: the nearest class mean, the probe with nothing to fit but the means."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from babelscope.probes.probe import Codes, Floats, Layers, ProbeInfo, one_hot


@dataclass(frozen=True, slots=True)
class MassMean:
    """The nearest of the class means.

    Between two classes the direction is the difference of their means (Marks and Tegmark 2023, arXiv:2310.06824,
    section 5), and the border lies in the middle.
    """

    info: ClassVar[ProbeInfo] = ProbeInfo(
        title="Nearest class mean (difference of means)",
        rotates=False,
        source="Marks and Tegmark (2023), arXiv:2310.06824, section 5",
    )

    def fit(self, X: Floats, labels: Codes, n_classes: int) -> Layers:
        """One linear layer, as `Probe.fit`."""
        weights, biases = self._solved(X, labels[None], n_classes)
        return Layers((weights[0],), (biases[0],))

    def predictions(self, X: Floats, labelings: Codes, n_classes: int, tests: Floats) -> Codes:
        """As `Probe.predictions`, all labelings at once."""
        weights, biases = self._solved(X, labelings, n_classes)
        scores = np.einsum("td,bdc->btc", tests, weights, optimize=True) + biases[:, None]
        found: Codes = scores.argmax(axis=-1)
        return found

    @staticmethod
    def _solved(X: Floats, labelings: Codes, n_classes: int) -> tuple[Floats, Floats]:
        targets = one_hot(labelings, n_classes)
        sizes = targets.sum(axis=1)
        means = np.einsum("brc,rd->bcd", targets, X, optimize=True) / np.maximum(sizes, 1)[:, :, None]
        biases = np.where(sizes == 0, -np.inf, -(means**2).sum(axis=2) / 2)
        return means.transpose(0, 2, 1), biases


probe = MassMean()
