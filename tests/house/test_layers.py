"""Imports point down the layers of the house, never to another room of the same floor, and never in a circle."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

import pytest

# The floor of each room; a room that is not here fails the test, so that it is given one when somebody moves in.
LAYERS = {
    **dict.fromkeys(["exceptions", "_optional", "_device", "_table", "_params", "_messages", "_code", "_warnings"], 0),
    **dict.fromkeys(["_locks", "_randomness", "_threads", "_stores", "_part", "_process", "_interrupts"], 0),
    **dict.fromkeys(["_moved", "_version"], 0),
    **dict.fromkeys(["_images", "backbones"], 1),
    # The cellar: frozen prefixes, then training, then estimators.
    "_frozen": 2,
    "_training": 3,
    "_estimators": 4,
    **dict.fromkeys(["feature_extraction", "finetuning", "distillation", "compression", "autoencoders"], 5),
    **dict.fromkeys(["anomaly"], 5),
    **dict.fromkeys(["self_supervised", "domain_adaptation", "multitask", "text", "preprocessing", "datasets"], 5),
    **dict.fromkeys(["selection", "inspection", "export", "distributed"], 6),
    "": 7,  # sktl/__init__.py, the front door
}


def imports(name: str, tree: ast.Module, modules: dict) -> Iterator[tuple[str, str]]:
    """(importing module, imported module of sktl), at module level and inside functions alike."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((name, alias.name) for alias in node.names if alias.name.split(".")[0] == "sktl")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively; say sktl..."
            source = node.module or ""
            if source.split(".")[0] == "sktl":
                # "from sktl.package import module" imports the module, "from sktl.package import thing" the package.
                whole = (f"{source}.{alias.name}" for alias in node.names)
                yield from {(name, module if module in modules else source) for module in whole}


def room(module: str) -> str:
    return [*module.split("."), ""][1]


@pytest.fixture(scope="module")
def edges(modules) -> set[tuple[str, str]]:
    """All imports between modules of sktl."""
    return {edge for name, tree in modules.items() for edge in imports(name, tree, modules)}


def test_every_room_has_a_floor(modules):
    """A new room is put on a layer before anything is said of its imports."""
    assert {room(name) for name in modules} <= set(LAYERS)


def test_imports_point_down(edges):
    """No module imports from a floor above, nor from another room of its own floor; the ground floor is one room."""
    wrong = [
        f"{importer} imports {imported}"
        for importer, imported in sorted(edges)
        if room(importer) != room(imported)
        and LAYERS[room(importer)] <= LAYERS[room(imported)]
        and not LAYERS[room(importer)] == LAYERS[room(imported)] == 0
    ]
    assert wrong == []


def test_no_cycles(edges):
    """Neither between rooms nor inside one; an import inside a function counts."""
    graph: dict[str, set[str]] = {}
    for importer, imported in edges:
        graph.setdefault(importer, set()).add(imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import sktl._images", "sktl._images"),
        ("from sktl.backbones import _graph", "sktl.backbones._graph"),
        ("from sktl.backbones import load_backbone", "sktl.backbones"),
        ("def f():\n    from sktl.exceptions import ImageError", "sktl.exceptions"),
        ("if TYPE_CHECKING:\n    import sktl", "sktl"),
    ],
)
def test_the_reader_of_imports_sees_all_forms(code, expected):
    """What the tests above rest on: each way to write an import gives the module that is imported."""
    modules = dict.fromkeys(["sktl", "sktl._images", "sktl.backbones", "sktl.backbones._graph", "sktl.exceptions"])
    assert list(imports("sktl.x", ast.parse(code), modules)) == [("sktl.x", expected)]
