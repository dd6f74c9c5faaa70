"""What importing sktl costs beyond importing torch and scikit-learn.

Run: python benchmarks/import_time.py
"""

import statistics
import subprocess
import sys

from common import machine, show

STATEMENTS = (
    "import sktl",
    "from sktl import PretrainedFeatureExtractor",
    "from sktl import FineTunedClassifier",
)
CODE = "import time, torch, sklearn.base; s = time.perf_counter(); {}; print(time.perf_counter() - s)"


def seconds(statement: str) -> list[float]:
    """Of nine new processes."""
    command = [sys.executable, "-c", CODE.format(statement)]
    return [float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(9)]


def main() -> None:
    """Print the table."""
    rows = []
    for statement in STATEMENTS:
        times = seconds(statement)
        rows.append((statement, statistics.median(times), min(times), max(times)))
    show("Imports, after torch and scikit-learn", ("statement", "median s", "min", "max"), rows)


if __name__ == "__main__":
    print(machine())
    main()
