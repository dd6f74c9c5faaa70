"""What ``import sktl`` costs beyond importing torch and scikit-learn.

Run: python benchmarks/import_time.py
"""

import statistics
import subprocess
import sys

from common import machine, show

CODE = "import time, torch, sklearn.base; s = time.perf_counter(); import sktl; print(time.perf_counter() - s)"


def main() -> None:
    """Median of nine new processes."""
    times = [
        float(subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout)
        for _ in range(9)
    ]
    show(
        "import sktl, after torch and scikit-learn",
        ("median s", "min", "max"),
        [(statistics.median(times), min(times), max(times))],
    )


if __name__ == "__main__":
    print(machine())
    main()
