"""Draw the figures of the documentation: docs/_static/overview.svg and docs/_static/which_estimator.svg.

Their colors can be read on light and on dark pages. Run it after a change::

    python docs/draw_figures.py
"""

from html import escape
from pathlib import Path

BLUE, ORANGE, GREEN, GRAY = "#2f6db5", "#c8571b", "#2e7d4f", "#5f6771"
LINE = "#7a828c"
STYLE = f"""
text {{ font-family: system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; text-anchor: middle; }}
.title {{ font-size: 15px; font-weight: 600; fill: #fff; }}
.small {{ font-size: 13px; fill: #fff; }}
.caption {{ font-size: 13px; fill: {LINE}; }}
.arrow {{ stroke: {LINE}; stroke-width: 2; fill: none; }}
"""


def svg(height, description, *parts):
    """Return a drawing of 960 by ``height`` units."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 {height}" role="img"',
            f' aria-label="{description}">',
            f"<style>{STYLE}</style>",
            '<defs><marker id="head" viewBox="0 0 10 10" refX="8" refY="5" markerWidth="7" markerHeight="7"',
            f' orient="auto-start-reverse"><path d="M0 0 L10 5 L0 10 z" fill="{LINE}"/></marker></defs>',
            *parts,
            "</svg>",
            "",
        ]
    )


def text(x, y, words, kind):
    """Return a centered line of text."""
    return f'<text x="{x}" y="{y}" class="{kind}">{escape(words)}</text>'


def box(x, middle, width, title, subtitle, color):
    """Return a rounded box around two lines of text."""
    center = x + width // 2
    rect = f'<rect x="{x}" y="{middle - 29}" width="{width}" height="58" rx="8" fill="{color}"/>'
    return "\n".join([rect, text(center, middle - 4, title, "title"), text(center, middle + 16, subtitle, "small")])


def arrow(path):
    """Return an arrow along a path."""
    return f'<path d="{path}" class="arrow" marker-end="url(#head)"/>'


def branch(x1, y1, x2, y2, label):
    """Return an arrow with two corners and its label above the end."""
    corner = x1 + 22
    return arrow(f"M{x1} {y1} H{corner} V{y2} H{x2}") + "\n" + text((corner + x2) // 2, y2 - 8, label, "caption")


def stage(x, name):
    """Return one frozen stage."""
    rect = f'<rect x="{x}" y="102" width="67" height="58" rx="6" fill="{BLUE}"/>'
    return rect + text(x + 34, 136, name, "small")


def cache():
    """Return a cylinder."""
    body = f'<path d="M480 100 v62 a44 9 0 0 0 88 0 v-62" fill="{GRAY}"/>'
    return body + '<ellipse cx="524" cy="100" rx="44" ry="9" fill="#98a0a9"/>' + text(524, 141, "cache", "title")


def overview():
    """Return the figure of the landing page: frozen stages run once, and three estimators use their output."""
    return svg(
        268,
        "Images pass through frozen stages once; their cached output is used for features, fine-tuning and"
        " distillation.",
        box(4, 131, 118, "images", "paths, arrays, ...", BLUE),
        arrow("M126 131 H152"),
        *(stage(158 + 72 * i, name) for i, name in enumerate(["stem", "layer1", "layer2", "layer3"])),
        text(300, 92, "frozen stages of a pretrained network", "caption"),
        text(300, 182, "run once per image", "caption"),
        arrow("M446 131 H474"),
        cache(),
        text(524, 192, "memory or disk", "caption"),
        *(arrow(f"M572 {y1} L606 {y2}") for y1, y2 in [(122, 54), (131, 131), (140, 208)]),
        box(612, 52, 344, "PretrainedFeatureExtractor", "features for any scikit-learn estimator", GREEN),
        box(612, 131, 344, "FineTunedClassifier", "trained stages and a new head", ORANGE),
        box(612, 210, 344, "DistilledClassifier", "a small student learns from the large network", ORANGE),
    )


def which_estimator():
    """Return the decision tree from the number of images to an estimator."""
    return svg(
        478,
        "Few images: features and a linear model. Hundreds per class: fine-tune the last stages. Thousands: fine-tune"
        " all stages. Too large or too slow: distill or compress.",
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
        f'<path d="M4 318 H956" stroke="{LINE}" stroke-dasharray="4 6"/>',
        box(4, 400, 200, "Is the model", "too large or too slow?", BLUE),
        box(612, 365, 344, "DistilledClassifier", "a student learns from the model", GRAY),
        box(612, 440, 344, "PrunedClassifier, QuantizedClassifier", "and others of sktl.compression", GRAY),
    )


if __name__ == "__main__":
    static = Path(__file__).parent / "_static"
    for figure in (overview, which_estimator):
        (static / f"{figure.__name__}.svg").write_text(figure(), encoding="utf-8")
