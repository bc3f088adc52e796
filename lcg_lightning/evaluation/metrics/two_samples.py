"""The classifier two-sample test (Lopez-Paz and Oquab, arXiv 1610.06545)."""

import warnings

import numpy as np
from numpy.typing import NDArray

from lcg_lightning.evaluation.estimates import Estimate
from lcg_lightning.evaluation.metrics.intervals import mean_estimates

_FOLDS = 5


def accuracy(x: NDArray[np.float64], y: NDArray[np.float64]) -> Estimate:
    """Held-out accuracy of a classifier that tells the rows of two sets apart, by cross-validation in five folds.

    The classifier is a network with one hidden layer of 128 units on standardized inputs, seeded, with a weight decay
    that keeps it from learning the rows by heart. Rows in the same place are in the same fold, so x_i and y_i may be
    samples of one condition. The expected accuracy is .5 if both sets follow one distribution, and at most
    (1 + total variation) / 2 otherwise. The bootstrap interval is over the rows, with the classifiers held fixed.

    Args:
        x: (N, d), N >= 2.
        y: (N, d).
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fold = np.arange(len(x)) % min(_FOLDS, len(x))
    right = np.empty((len(x), 2))
    for held_out in np.unique(fold):
        fitted, tested = fold != held_out, fold == held_out
        network = MLPClassifier(hidden_layer_sizes=(128,), alpha=3.0, max_iter=30, random_state=0)
        classifier = make_pipeline(StandardScaler(), network)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # thirty epochs are the regularization
            classifier.fit(np.concatenate([x[fitted], y[fitted]]), np.repeat([0, 1], fitted.sum()))
        right[tested] = np.stack([classifier.predict(x[tested]) == 0, classifier.predict(y[tested]) == 1], 1)
    return mean_estimates(right.mean(1, keepdims=True))[0]
