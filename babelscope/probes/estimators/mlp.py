"""A small perceptron: what is there but not linearly, at the price of a probe that can learn by itself."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from sklearn.neural_network import MLPClassifier

from babelscope.probes.probe import Codes, Floats, Layers, ProbeInfo, check_positive, each_alone
from babelscope.probes.scikit import converged_or_not, two_columns


@dataclass(frozen=True, slots=True)
class Perceptron:
    """One hidden layer with ReLU, classes weighted alike.

    Parameters
    ----------
    hidden : int
        Units of the hidden layer.
    penalty : float
        L2 penalty (`alpha` of scikit-learn).
    """

    hidden: int = 32
    penalty: float = 1.0

    info: ClassVar[ProbeInfo] = ProbeInfo(
        title="Perceptron with one small hidden layer",
        rotates=False,  # its weights start along the axes of the rows it sees
        source="Hewitt and Liang (2019), arXiv:1909.03368, section 3.2; scikit-learn's MLPClassifier",
    )

    def __post_init__(self) -> None:
        check_positive("hidden", (self.hidden,))
        check_positive("penalty", (self.penalty,))

    def fit(self, X: Floats, labels: Codes, n_classes: int) -> Layers:
        """Two layers, as `Probe.fit`."""
        sizes = np.bincount(labels, minlength=n_classes)
        model = MLPClassifier((self.hidden,), alpha=self.penalty, solver="lbfgs", max_iter=200, random_state=0)
        with converged_or_not():
            model.fit(X, labels, sample_weight=len(labels) / (n_classes * sizes[labels]))
        last, bias = two_columns(model.coefs_[-1], model.intercepts_[-1])
        return Layers((*model.coefs_[:-1], last), (*model.intercepts_[:-1], bias))

    def predictions(self, X: Floats, labelings: Codes, n_classes: int, tests: Floats) -> Codes:
        """As `Probe.predictions`, a fit for each labeling."""
        return each_alone(self, X, labelings, n_classes, tests)


probe = Perceptron()
