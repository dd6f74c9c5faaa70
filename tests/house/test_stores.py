"""What is kept for the life of the process is registered, so that `sktl.clear_caches` empties it."""

import ast

CONTAINERS = {"dict", "list", "set", "OrderedDict", "defaultdict", "deque", "Counter"}
CONTAINERS |= {"WeakValueDictionary", "WeakKeyDictionary", "WeakSet"}

# Nothing that takes room: what exists anyway, what was told to the user once, a number or some names of the system.
NO_STORES = {
    "sktl._locks._ALL",
    "sktl._stores._STORES",
    "sktl._warnings._TOLD",
    "sktl._warnings._TOLD_IN_WORKER",
    "sktl._frozen._cache._base._CACHES",
    "sktl._frozen._cache._base._WARNED",
    "sktl._frozen._cache._directory._KNOWN",
    "sktl._frozen._onnx._UNKEPT",
    "sktl._images._read_settings.memory",
    "sktl.backbones._torchvision.list_names",
    "sktl.compression._integer_session.overflows",
}


def is_empty_container(value: "ast.expr | None") -> bool:
    if isinstance(value, ast.Dict | ast.List | ast.Set):
        return not ast.unparse(value).strip("{}[]")
    if isinstance(value, ast.Call):
        return ast.unparse(value.func).rpartition(".")[2] in CONTAINERS and not any(
            isinstance(argument, ast.Dict | ast.List | ast.Tuple | ast.ListComp | ast.GeneratorExp)
            for argument in value.args
        )
    return False


def stores(tree: ast.Module) -> set[str]:
    """The containers of a module that begin empty, and its functions that remember what they gave."""
    found = set()
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and is_empty_container(node.value):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.FunctionDef):
            decorators = {ast.unparse(each).split("(")[0].rpartition(".")[2] for each in node.decorator_list}
            found |= {node.name} if decorators & {"cache", "lru_cache"} else set()
    return found


def registered(tree: ast.Module) -> set[str]:
    """The names that are emptied by what a module registers."""
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "register_store":
            names |= {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    for name in names & functions.keys():
        names |= {part.id for part in ast.walk(functions[name]) if isinstance(part, ast.Name)}
    return names


def test_every_store_is_registered(modules):
    """A container of a module that begins empty is there to be filled, and to be emptied again."""
    found = {f"{name}.{store}" for name, tree in modules.items() for store in stores(tree) - registered(tree)}
    assert found == NO_STORES


def test_the_reader_of_stores_sees_all_forms():
    """What the test above rests on."""
    code = "A = {}\nB: set[str] = set()\nC = OrderedDict()\nD = {1: 2}\nE = set([1])\n@functools.cache\ndef f(): ...\n"
    tree = ast.parse(code + "def g():\n    B.clear()\nregister_store('x', g)\nregister_store('y', A.clear)")
    assert stores(tree) == {"A", "B", "C", "f"}
    assert stores(tree) - registered(tree) == {"C", "f"}
