"""Click probabilities made right by other impressions: Platt's sigmoid and isotonic regression.

Both are fitted on validation impressions alone. The first keeps the order of a model's scores, the second all but ties,
so they tell how much of a log loss is a wrong scale rather than a wrong order (Niculescu-Mizil and Caruana, ICML 2005).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit

from tessera.evaluation.clicks import auc, ece, log_losses

Array = NDArray[np.float64]
Calibrate = Callable[[np.ndarray], Array]
"""(n,) probabilities -> (n,) better ones."""

_CLIP = 1e-12
"""Probabilities are kept so far from 0 and 1 in their log-odds: further than any that 32 bits tell apart from 1."""


def _log_odds(probabilities: np.ndarray) -> Array:
    return np.asarray(logit(np.clip(probabilities.astype(np.float64), _CLIP, 1 - _CLIP)))


def _targets(labels: np.ndarray) -> Array:
    """(n,) what stands for 0 and 1: of few impressions of a class none can say always or never (Platt, section 2.2)."""
    clicked = labels > 0
    clicks = int(clicked.sum())
    return np.where(clicked, (clicks + 1) / (clicks + 2), 1 / (len(labels) - clicks + 2))


def fit_platt(labels: np.ndarray, probabilities: np.ndarray) -> Calibrate:
    """sigmoid(a x + b) of the log-odds x, by greatest likelihood (Platt, 1999); a is above 0, so the order stays.

    It is fitted to Platt's targets (`_targets`), so that a has a bound where scores tell the classes apart without an
    error. Where scores are so wrong that a would be 0 or less, it is 1 and only the mean is set right.

    Args:
        labels: (n,) 0 or 1, both.
        probabilities: (n,) as a model predicts them.
    """
    from sklearn.linear_model import LogisticRegression  # a stage that fits nothing need not import it

    odds, targets = _log_odds(probabilities), _targets(labels)
    # a target between 0 and 1 is an impression that counts in part as a click, in part as none
    twice, classes = np.concatenate([odds, odds])[:, None], np.repeat([1, 0], len(odds))
    weights = np.concatenate([targets, 1 - targets])
    fitted = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000).fit(twice, classes, weights)
    slope, shift = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    if slope <= 0:
        most = float(np.abs(odds).max()) + 40.0
        mean = float(targets.mean())
        slope, shift = 1.0, float(brentq(lambda b: float(expit(odds + b).mean()) - mean, -most, most))
    return lambda new: np.asarray(expit(slope * _log_odds(new) + shift))


def fit_isotonic(labels: np.ndarray, probabilities: np.ndarray) -> Calibrate:
    """The rising step function of least squares, with straight lines between (Zadrozny and Elkan, KDD 2002).

    It stays 1 / (n + 2) from 0 and 1: n impressions cannot say never or always.

    Args:
        labels: (n,) 0 or 1.
        probabilities: (n,) as a model predicts them.
    """
    from sklearn.isotonic import IsotonicRegression

    least = 1 / (len(labels) + 2)
    fitted = IsotonicRegression(y_min=least, y_max=1 - least, out_of_bounds="clip")
    fitted.fit(probabilities.astype(np.float64), (labels > 0).astype(np.float64))
    return lambda new: np.asarray(fitted.predict(new.astype(np.float64)), np.float64)


METHODS: Mapping[str, Callable[[np.ndarray, np.ndarray], Calibrate]] = {"Platt": fit_platt, "isotonic": fit_isotonic}


def calibrated(
    fitted_on: tuple[np.ndarray, np.ndarray], judged: tuple[np.ndarray, np.ndarray], bins: int
) -> dict[str, dict[str, Any]]:
    """Metrics of test impressions after each method; empty where what it is fitted on has one class alone.

    Args:
        fitted_on: labels and probabilities of validation impressions.
        judged: labels and probabilities of test impressions.
        bins: of the calibration error.
    Returns:
        method -> `samples`, how many were judged, `fitted_on`, and `metrics`: AUC, log loss, ECE.
    """
    labels, probabilities = fitted_on
    if not 0 < int((labels > 0).sum()) < len(labels):
        return {}
    by_method = {}
    for name, fit in METHODS.items():
        better = fit(labels, probabilities)(judged[1])
        metrics = {
            "AUC": auc(judged[0], better),
            "log loss": float(log_losses(judged[0], better).mean()),
            "ECE": ece(judged[0], better, bins),
        }
        by_method[name] = {"samples": len(better), "fitted_on": len(labels), "metrics": metrics}
    return by_method
