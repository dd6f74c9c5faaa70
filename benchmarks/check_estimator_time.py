"""Seconds of all of scikit-learn's `check_estimator`, for each estimator built with its defaults.

A distilled one is built around scikit-learn's linear model, a compressor around `FineTunedClassifier()`.

Run: python benchmarks/check_estimator_time.py [FineTunedClassifier ...]
"""

import sys
import time
import warnings
from collections import Counter

from common import machine, show
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.utils.estimator_checks import check_estimator

import sktl
from sktl import compression, selection

NETWORK = {"estimator": sktl.FineTunedClassifier()}
ESTIMATORS = {
    "BackboneSelector": {},
    "DistilledClassifier": {"teacher": LogisticRegression()},
    "DistilledRegressor": {"teacher": LinearRegression()},
    "FineTunedClassifier": {},
    "FineTunedRegressor": {},
    "LotteryTicketClassifier": NETWORK,
    "LowRankClassifier": NETWORK,
    "PretrainedFeatureExtractor": {},
    "PrunedClassifier": NETWORK,
    "QuantizedClassifier": NETWORK,
}


def main() -> None:
    """Print the table."""
    rows = []
    for name in sys.argv[1:] or ESTIMATORS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # checks of odd input warn on purpose
            start = time.perf_counter()
            room = next(room for room in (sktl, compression, selection) if hasattr(room, name))
            checks = check_estimator(getattr(room, name)(**ESTIMATORS[name]), on_skip=None, on_fail=None)
            took = time.perf_counter() - start
        counts = Counter(check["status"] for check in checks)
        others = [f"{check['check_name']} ({check['status']})" for check in checks if check["status"] != "passed"]
        rows.append((name, len(checks), counts["passed"], ", ".join(others) or "none", took))
    show("check_estimator", ("estimator", "checks", "passed", "others", "seconds"), rows)


if __name__ == "__main__":
    print(machine(), flush=True)
    main()
