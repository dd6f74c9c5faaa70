"""Draw docs/_static/which_estimator.svg: a decision tree from the number of images to an estimator.

Its colors can be read on light and on dark pages. Run it after a change::

    python docs/draw_which_estimator.py
"""

from html import escape
from pathlib import Path

BLUE, ORANGE, GREEN, GRAY = "#2f6db5", "#c8571b", "#2e7d4f", "#5f6771"
STYLE = """
text { font-family: system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; text-anchor: middle; }
.title { font-size: 15px; font-weight: 600; fill: #fff; }
.small { font-size: 13px; fill: #fff; }
.caption { font-size: 13px; fill: #7a828c; }
.arrow { stroke: #7a828c; stroke-width: 2; fill: none; }
"""


def box(x, middle, width, title, subtitle, color):
    """Return a rounded box around two lines of text."""
    center = x + width // 2
    return (
        f'<rect x="{x}" y="{middle - 29}" width="{width}" height="58" rx="8" fill="{color}"/>\n'
        f'<text x="{center}" y="{middle - 4}" class="title">{escape(title)}</text>\n'
        f'<text x="{center}" y="{middle + 16}" class="small">{escape(subtitle)}</text>'
    )


def branch(x1, y1, x2, y2, label):
    """Return an arrow that leaves downwards or upwards and arrives from the left, with its label above."""
    corner = x1 + 22
    return (
        f'<path d="M{x1} {y1} H{corner} V{y2} H{x2}" class="arrow" marker-end="url(#head)"/>\n'
        f'<text x="{(corner + x2) // 2}" y="{y2 - 8}" class="caption">{escape(label)}</text>'
    )


def decision_tree():
    """Return the drawing as text."""
    return "\n".join(
        [
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 478" role="img"',
            ' aria-label="Few images: features and a linear model. Hundreds per class: fine-tune the last stages.'
            ' Thousands: fine-tune all stages. Too large or too slow: distill or compress.">',
            f"<style>{STYLE}</style>",
            '<defs><marker id="head" viewBox="0 0 10 10" refX="8" refY="5" markerWidth="7" markerHeight="7"',
            ' orient="auto-start-reverse"><path d="M0 0 L10 5 L0 10 z" fill="#7a828c"/></marker></defs>',
            branch(204, 145, 336, 75, "up to 100"),
            branch(204, 145, 612, 190, "hundreds"),
            branch(204, 145, 612, 265, "thousands"),
            branch(524, 75, 612, 40, "yes"),
            branch(524, 75, 612, 115, "no"),
            branch(204, 400, 612, 365, "a smaller network, also from unlabeled images"),
            branch(204, 400, 612, 440, "the same network with fewer filters or bits"),
            box(4, 145, 200, "How many images", "per class?", BLUE),
            box(336, 75, 188, "Similar to the", "pretraining images?", BLUE),
            box(612, 40, 344, "PretrainedFeatureExtractor", "last stage, then a linear model", GREEN),
            box(612, 115, 344, "PretrainedFeatureExtractor", "search over layers, then a linear model", GREEN),
            box(612, 190, 344, "FineTunedClassifier", "train the last stages", ORANGE),
            box(612, 265, 344, "FineTunedClassifier", "train all stages: freeze_depth=0", ORANGE),
            '<path d="M4 318 H956" stroke="#7a828c" stroke-dasharray="4 6"/>',
            box(4, 400, 200, "Is the model", "too large or too slow?", BLUE),
            box(612, 365, 344, "DistilledClassifier", "a student learns from the model", GRAY),
            box(612, 440, 344, "PrunedClassifier, QuantizedClassifier", "and others of sktl.compression", GRAY),
            "</svg>",
            "",
        ]
    )


if __name__ == "__main__":
    (Path(__file__).parent / "_static" / "which_estimator.svg").write_text(decision_tree(), encoding="utf-8")
