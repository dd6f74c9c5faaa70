"""The README does what it shows: its blocks run as they stand, in order, offline, with warnings as errors."""

import ast
import itertools
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from sktl.datasets import load_image_folder, make_image_folder

# A block that cannot run here says so in the line before it, in a comment that the rendered page does not show.
NOT_RUN: list[str] = []


class Block(NamedTuple):
    """One fenced block of the README.

    Attributes
    ----------
    language : str
    text : str
    line : int
        The line of its opening fence, from 1.
    mark : str
        The comment in the line before it, as in ``"ci: tests"``, or "".
    """

    language: str
    text: str
    line: int
    mark: str

    def __str__(self) -> str:
        return f"README.md:{self.line}: ```{self.language}"


@pytest.fixture(scope="session")
def blocks(root) -> list[Block]:
    """All fenced blocks of the README, in order."""
    text = (root / "README.md").read_text(encoding="utf-8")
    fenced = r"(?:^<!-- (?P<mark>[^\n]*) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$"
    return [
        Block(match["language"], match["text"], text.count("\n", 0, match.start("language")) + 1, match["mark"] or "")
        for match in re.finditer(fenced, text, flags=re.MULTILINE | re.DOTALL)
    ]


def test_no_block_is_forgotten(root, blocks):
    """Python runs below, shell in ``.ci/run``, text is what the Python before it prints; others say why they cannot."""
    fences = re.findall(r"^ *(?:```|~~~)", (root / "README.md").read_text(encoding="utf-8"), flags=re.M)
    assert len(fences) == 2 * len(blocks)
    assert [block.mark.removeprefix("not run: ") for block in blocks if block.mark.startswith("not run: ")] == NOT_RUN
    ci = (root / ".ci" / "run").read_text(encoding="utf-8")
    for before, block in itertools.pairwise([None, *blocks]):
        if block.mark.startswith("not run: ") or block.language == "python":
            continue
        if block.language == "text":
            assert before is not None, block
            assert before.language == "python", block
            assert "print(" in before.text, block
        else:
            assert block.language == "bash", block
            assert block.mark.startswith("ci: "), block
            assert f"run_readme_block {block.mark.removeprefix('ci: ')}\n" in ci, block


@pytest.fixture
def readers_folder(tmp_path, monkeypatch, blocks) -> Path:
    """What a reader of the README has: ``photos/`` with class folders, ``new/``, a table, and published networks.

    The networks' files have random weights and lie where torch keeps those that it has downloaded.
    """
    X, y = load_image_folder(make_image_folder(tmp_path / "photos", n_samples=60), return_X_y=True)
    make_image_folder(tmp_path / "new", n_samples=4, labeled=False, random_state=1)
    table = X.assign(price=range(len(X)), weight=1.0, label=y).rename(columns={"image": "photo"})
    table.to_csv(tmp_path / "products.csv", index=False)
    code = "\n".join(block.text for block in blocks if block.language == "python")
    strings = {node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)}
    for name in sorted(strings & set(torchvision.models.list_models())):
        _publish(name, tmp_path / "torch" / "hub" / "checkpoints")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _publish(name: str, folder: Path) -> None:
    """Write the file that torchvision would download for ``name``, with random weights.

    Its batch norms know what they see, as those of a trained network do: else activations vanish or explode with depth.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = torchvision.models.get_model(name, weights=None)
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = None  # the plain mean of what is seen
        with torch.no_grad():
            network(torch.randn(4, 3, 64, 64))
    url = torchvision.models.get_model_weights(name).DEFAULT.url
    torch.save(network.state_dict(), folder / url.rsplit("/", 1)[-1])


def test_every_block_runs(blocks, readers_folder, capsys):
    """One namespace for all, as for a reader who types them one after the other; what is printed is what is shown."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    printed = ""
    for block in blocks:
        if block.mark.startswith("not run: "):
            continue
        if block.language == "python":
            code = compile("\n" * block.line + block.text, "README.md", "exec")  # line numbers as in the README
            exec(code, namespace)
            printed = capsys.readouterr().out
        elif block.language == "text":
            assert_alike(printed, block.text)


def assert_alike(printed: str, shown: str) -> None:
    """The same words, and numbers within 0.03: another processor rounds otherwise, and one image of 40 may tip over."""
    number = r"\d+\.?\d*"
    assert re.sub(number, "0", printed).split() == re.sub(number, "0", shown).split()
    np.testing.assert_allclose(
        [float(n) for n in re.findall(number, printed)], [float(n) for n in re.findall(number, shown)], atol=0.03
    )
