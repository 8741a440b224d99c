"""Logistic regression, the usual linear probe."""

from dataclasses import dataclass
from typing import ClassVar

from sklearn.linear_model import LogisticRegression

from babelscope.probes.probe import Codes, Floats, Layers, ProbeInfo, check_positive, each_alone
from babelscope.probes.scikit import linear_layers


@dataclass(frozen=True, slots=True)
class Logistic:
    """Multinomial logistic regression with an L2 penalty, classes weighted alike.

    Parameters
    ----------
    C : float
        Inverse of the penalty, as in scikit-learn. On standardized rows with more dimensions than items a probe needs
        a strong one.
    """

    C: float = 0.01

    info: ClassVar[ProbeInfo] = ProbeInfo(
        title="Logistic regression with an L2 penalty",
        rotates=True,
        source="Alain and Bengio (2016), arXiv:1610.01644, section 3; scikit-learn's LogisticRegression",
    )

    def __post_init__(self) -> None:
        check_positive("C", (self.C,))

    def fit(self, X: Floats, labels: Codes, n_classes: int) -> Layers:
        """One linear layer, as `Probe.fit`."""
        model = LogisticRegression(C=self.C, class_weight="balanced", max_iter=2000)
        return linear_layers(model.fit(X, labels), n_classes)

    def predictions(self, X: Floats, labelings: Codes, n_classes: int, tests: Floats) -> Codes:
        """As `Probe.predictions`, a fit for each labeling."""
        return each_alone(self, X, labelings, n_classes, tests)


probe = Logistic()
