"""Logistic regression that keeps few dimensions: the probe to ask which neurons carry a label."""

from dataclasses import dataclass
from typing import ClassVar

from sklearn.linear_model import LogisticRegression

from babelscope.errors import BabelScopeError
from babelscope.probes.probe import Codes, Floats, Layers, ProbeInfo, check_positive, each_alone
from babelscope.probes.scikit import converged_or_not, linear_layers


@dataclass(frozen=True, slots=True)
class ElasticNet:
    """Multinomial logistic regression with an elastic-net penalty, classes weighted alike.

    Parameters
    ----------
    C : float
        Inverse of the penalty, as in scikit-learn.
    l1_ratio : float
        Share of the penalty that is L1, above 0 and up to 1.
    """

    C: float = 0.1
    l1_ratio: float = 0.5

    info: ClassVar[ProbeInfo] = ProbeInfo(
        title="Logistic regression with an elastic-net penalty",
        rotates=False,
        source="Zou and Hastie (2005); Dalvi et al. (2019), section 3.1; scikit-learn's LogisticRegression",
    )

    def __post_init__(self) -> None:
        check_positive("C", (self.C,))
        if not 0 < self.l1_ratio <= 1:
            raise BabelScopeError(f"probe parameter l1_ratio is {self.l1_ratio}", "give a share, as l1_ratio=0.5")

    def fit(self, X: Floats, labels: Codes, n_classes: int) -> Layers:
        """One linear layer, as `Probe.fit`."""
        model = LogisticRegression(
            C=self.C, l1_ratio=self.l1_ratio, solver="saga", class_weight="balanced", tol=1e-3, max_iter=500,
            random_state=0,
        )  # fmt: skip
        with converged_or_not():
            model.fit(X, labels)
        return linear_layers(model, n_classes)

    def predictions(self, X: Floats, labelings: Codes, n_classes: int, tests: Floats) -> Codes:
        """As `Probe.predictions`, a fit for each labeling."""
        return each_alone(self, X, labelings, n_classes, tests)


probe = ElasticNet()
