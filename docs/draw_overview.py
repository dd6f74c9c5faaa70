"""Draw docs/_static/overview.svg: an image, the frozen stages that run once, the cache, and the three ways to transfer.

Its colors can be read on light and on dark pages. Run it after a change::

    python docs/draw_overview.py
"""

from html import escape
from pathlib import Path

BLUE, ORANGE, GREEN, GRAY = "#2f6db5", "#c8571b", "#2e7d4f", "#7a828c"


def box(x, y, width, height, title, subtitle="", color=BLUE):
    """Return a rounded box with a title and a smaller line below."""
    middle = x + width / 2
    baseline = y + height / 2 + (5 if not subtitle else -4)
    parts = [
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="{color}"/>',
        f'<text x="{middle}" y="{baseline}" class="title">{escape(title)}</text>',
    ]
    if subtitle:
        parts.append(f'<text x="{middle}" y="{baseline + 19}" class="small">{escape(subtitle)}</text>')
    return "\n".join(parts)


def arrow(x1, y1, x2, y2):
    """Return an arrow."""
    return f'<path d="M{x1} {y1} L{x2} {y2}" class="arrow" marker-end="url(#head)"/>'


def caption(x, y, text):
    """Return a line of gray text, centered."""
    return f'<text x="{x}" y="{y}" class="caption">{escape(text)}</text>'


def stages(x, y, width, height):
    """Return the frozen stages, side by side."""
    names = ["stem", "layer1", "layer2", "layer3"]
    each = width / len(names)
    return "\n".join(
        f'<rect x="{x + each * i}" y="{y}" width="{each - 5}" height="{height}" rx="6" fill="{BLUE}"/>'
        f'<text x="{x + each * i + each / 2 - 2}" y="{y + height / 2 + 5}" class="small">{name}</text>'
        for i, name in enumerate(names)
    )


def cache(x, y, width, height):
    """Return a cylinder."""
    half = width / 2
    return (
        f'<path d="M{x} {y} v{height} a{half} 9 0 0 0 {width} 0 v-{height}" fill="{GRAY}"/>'
        f'<ellipse cx="{x + half}" cy="{y}" rx="{half}" ry="9" fill="#98a0a9"/>'
        f'<text x="{x + half}" y="{y + height / 2 + 10}" class="title">cache</text>'
    )


STYLE = """
text { font-family: system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; text-anchor: middle; }
.title { font-size: 15px; font-weight: 600; fill: #fff; }
.small { font-size: 13px; fill: #fff; }
.caption { font-size: 13px; fill: #7a828c; }
.arrow { stroke: #7a828c; stroke-width: 2; fill: none; }
"""


def overview():
    """Return the drawing as text."""
    return "\n".join(
        [
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 268" role="img"',
            ' aria-label="Images pass through frozen stages once; their cached output is used for features,'
            ' fine-tuning and distillation.">',
            f"<style>{STYLE}</style>",
            '<defs><marker id="head" viewBox="0 0 10 10" refX="8" refY="5" markerWidth="7" markerHeight="7"',
            ' orient="auto-start-reverse"><path d="M0 0 L10 5 L0 10 z" fill="#7a828c"/></marker></defs>',
            box(4, 102, 118, 58, "images", "paths, arrays, ..."),
            arrow(126, 131, 152, 131),
            stages(158, 102, 288, 58),
            caption(300, 92, "frozen stages of a pretrained network"),
            caption(300, 182, "run once per image"),
            arrow(446, 131, 474, 131),
            cache(480, 100, 88, 62),
            caption(524, 192, "memory or disk"),
            arrow(572, 122, 606, 54),
            arrow(572, 131, 606, 131),
            arrow(572, 140, 606, 208),
            box(612, 22, 344, 60, "PretrainedFeatureExtractor", "features for any scikit-learn estimator", GREEN),
            box(612, 102, 344, 60, "FineTunedClassifier", "trained stages and a new head", ORANGE),
            box(612, 182, 344, 60, "DistilledClassifier", "a small student learns from the large network", ORANGE),
            "</svg>",
            "",
        ]
    )


if __name__ == "__main__":
    (Path(__file__).parent / "_static" / "overview.svg").write_text(overview(), encoding="utf-8")
