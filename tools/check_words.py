"""Find words in docstrings, comments, messages and pages that our style does not use.

The style is that of scikit-learn's documentation: see "How we write" in CONTRIBUTING.md.
`BANNED` has the words with what to write instead, `ALLOWED` the phrases in which one of
them is right. Code is not looked at: literals, code blocks, examples and type lines::

    python tools/check_words.py                      # all hits, and how many in 1,000 words
    python tools/check_words.py sktl/_images docs    # in these files and folders
    python tools/check_words.py --count              # the numbers alone
"""

import argparse
import ast
import io
import itertools
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# A regular expression, and what to write instead.
BANNED = {
    r"pictures?": "image",
    r"(?-i:[Ww]here)": "if or when; for a place: 'the folder where', 'in which', 'at which'",
    r"lends?|lent|lending": "share, reuse, provide",
    r"(left|leave|leaves|leaving) (\w+ )?behind": "leftover, omitted, without",
    r"anew": "again",
    r"mend(s|ed|ing)?": "fix",
    r"asks?|asked|asking": "query, call, request, use",
    r"judges?|judged|judging": "evaluate, score, validate",
    r"places?": "position, location, pixel",
    r"(is|are|was|were|be) (?-i:none)": "has no ..., does not exist",
    r"(is|are|was|were|be) no(?= [\w§])": "is not a, has no, does not",
    r"shall": "must, should",
    r"at hand": "available",
    r"said|says?|saying": "given, stated, shown; the message names",
    r"nobody|no one": "no user, unlabeled",
    r"(becomes?|became) of": "happens to, how ... is changed",
    r"finite numbers?": "finite values; NaN or infinite",
    r"of (your|its|their|his|our|my) own": "your own ..., separate",
    r"(stands?|stood) (beside|before|around|behind|next|in)": "is, precedes, wraps, follows",
    r"ours": "sktl's",
    r"beside": "next to, in addition to, besides",
    r"learnt|burnt|spelt|dreamt|whilst|amongst": "learned",
    r"colour(s|ed|ing|ful)?|gr[e]y(s|scale|ish)?|centre[sd]?|behaviours?|favours?|neighbours?": "American spelling",
    r"labell(ed|ing)|modell(ed|ing)|cancelled|cancelling|artefacts?|judgement|programmes?|licences?": "as in the US",
    r"(normal|standard|quant|general|initial|optim|regular|special|recogn|summar|vector|serial|material|organ)"
    r"is(e|es|ed|er|ers|ing|ation|ations)": "American spelling",
    r"(visual|minim|maxim|character|real|random|parametr|token|binar|categor|util|emphas|memor)"
    r"is(e|es|ed|er|ers|ing|ation|ations)": "American spelling",
}
# In the reference and in messages only. A guide may say that ImageNet's images are photos.
BANNED_IN_API = {r"photos?": "image, unless it has to be a photo"}
# A docstring's summary, and the text of a parameter, stand alone.
SUMMARY = re.compile(r"(What|Where|Whose|Who|How|Which|Whether|That|With|Of|By|In|As|If|It|Is|There)\b")
ENTRY = re.compile(r"(Of|That|Whose|By|Where|From(?! `)|They|Their|Its|Which|On which|To which)\b")
# A clause about a place; and how formulas are explained.
PLACE = r"(folder|director\w+|file|path|position|point|stage|layer|device|column|line|pixel|region|disk|page)s? "
# Phrases in which a banned word is right, for a reason that its neighbors do not show. At most 15.
ALLOWED = [
    r"(decimal places|(in|takes?|took) place)\b",
    r"where to\b",  # a place: where to keep the cache
    PLACE + r"where\b",
    r"(?<=[)§.] )where (§|:math:)",  # the symbols of a formula
]


class Hit(NamedTuple):
    """A word that our style does not use."""

    file: str
    line: int
    kind: str  # docstring, comment, message or page
    word: str
    text: str
    instead: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.kind}: {self.word!r} in {self.text!r}: {self.instead}"


class Prose(NamedTuple):
    """A passage without its code."""

    file: str
    line: int
    kind: str
    text: str


def passages(path: Path) -> Iterator[Prose]:
    """Yield the prose of a Python, reStructuredText or Markdown file."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        yield from of_python(str(path), source)
    else:
        yield Prose(str(path), 1, "page", without_code(source))


def of_python(file: str, source: str) -> Iterator[Prose]:
    """Yield docstrings, comments, and texts of several words."""
    tree = ast.parse(source)
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    docstrings = {
        id(node.body[0].value) for node in ast.walk(tree) if isinstance(node, documented) and ast.get_docstring(node)
    }
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "§" for part in node.values]
            yield Prose(file, node.lineno, "message", without_code("".join(map(str, parts))))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            if id(node) in docstrings:
                yield Prose(file, node.lineno, "docstring", without_code(node.value))
            elif " " in node.value:
                yield Prose(file, node.lineno, "message", without_code(node.value))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield Prose(file, token.start[0], "comment", without_code(token.string.lstrip("# ")))


def without_code(text: str) -> str:
    """Blank out code: literals, examples, blocks, directives and type lines. Keep the number of lines."""
    text = re.sub(r"^( *)```.*?^\1```", keep_lines, text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"(`+)[^`]+?\1", keep_lines, text)
    kept, literal, in_example = [], None, False
    for line in text.split("\n"):
        stripped, indent = line.strip(), len(line) - len(line.lstrip())
        if literal is not None and (not stripped or indent > literal):
            kept.append("")
            continue
        literal = None
        if stripped.startswith((">>> ", "... ")):
            in_example = True
        elif not stripped:
            in_example = False
        directive = re.match(
            r"\.\. (code-block|literalinclude|autosummary|math|toctree|figure|image|raw|plot|testcode)", stripped
        )
        if directive or (stripped.endswith("::") and not stripped.startswith("..")):
            literal = indent
        is_code = (
            in_example
            or directive
            or re.match(r"[*\w\", ]+ : \S", stripped)
            or re.match(r"<|\.\. _|:\w+:(?!§)", stripped)
        )
        kept.append("" if is_code else line)
    return "\n".join(kept)


def keep_lines(match: re.Match) -> str:
    """Return a sign that stands for code, with as many lines as the code."""
    return "§" + "\n" * match[0].count("\n")


def hits(prose: Prose) -> Iterator[Hit]:
    """Yield what is wrong with one passage."""
    text = prose.text
    for allowed in ALLOWED:
        text = re.sub(allowed, lambda match: "\n" * match[0].count("\n") or "~", text, flags=re.IGNORECASE)
    banned = BANNED if prose.kind == "page" else BANNED | BANNED_IN_API
    for pattern, instead in banned.items():
        pattern = pattern.replace(" ", r"\s+")
        for match in re.finditer(rf"(?<![\w-])({pattern})(?![\w-])", text, flags=re.IGNORECASE):
            yield found(prose, text, match, instead)
    if prose.kind == "docstring":
        if match := SUMMARY.match(text.strip()):
            yield Hit(prose.file, prose.line, prose.kind, match[0], text.strip()[:60], "a summary that stands alone")
        yield from wrong_entries(prose, text)


def wrong_entries(prose: Prose, text: str) -> Iterator[Hit]:
    """Yield the first words of entries that answer a question that is not printed."""
    lines = text.split("\n")
    for number, (above, line) in enumerate(itertools.pairwise(lines), start=1):
        if not above.strip() and line.startswith("    ") and (match := ENTRY.match(line.strip())):
            yield Hit(
                prose.file, prose.line + number, prose.kind, match[0], line.strip()[:60], "an entry that stands alone"
            )


def found(prose: Prose, text: str, match: re.Match, instead: str) -> Hit:
    """Return the hit with its line and the words around it."""
    line = prose.line + text.count("\n", 0, match.start())
    around = " ".join(text[max(match.start() - 30, 0) : match.end() + 30].split())
    return Hit(prose.file, line, prose.kind, match[0], around, instead)


def files(paths: list[Path]) -> list[Path]:
    """Return the files with prose among the given files and folders, without generated ones."""
    generated = {"_build", "auto_examples", "generated", "__pycache__"}
    candidates = [file for path in paths for file in ([path] if path.is_file() else sorted(path.rglob("*")))]
    return [file for file in candidates if file.suffix in (".py", ".rst", ".md") and not generated & set(file.parts)]


def number_of_words(prose: Prose) -> int:
    """Count the words of a passage."""
    return len(re.findall(r"[A-Za-z][\w'-]*", prose.text))


def main() -> None:
    """Print the hits and their number."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("paths", nargs="*", type=Path, default=[Path("sktl"), Path("docs"), Path("README.md")])
    parser.add_argument("--count", action="store_true", help="the numbers alone")
    options = parser.parse_args()
    all_prose = [prose for file in files(options.paths) for prose in passages(file)]
    wrong = [hit for prose in all_prose for hit in hits(prose)]
    if not options.count:
        for hit in wrong:
            print(hit)
    for kind in ("docstring", "comment", "message", "page"):
        words = sum(number_of_words(prose) for prose in all_prose if prose.kind == kind)
        n_hits = sum(hit.kind == kind for hit in wrong)
        if words:
            print(f"{kind}s: {n_hits} hits in {words:,} words, {1000 * n_hits / words:.2f} in 1,000")


if __name__ == "__main__":
    main()
