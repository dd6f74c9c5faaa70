"""No lock of Python's own: one that another thread holds while the process forks stays locked in the child."""

import ast

from sktl import _locks

LOCKS = {"Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore", "Barrier", "Event"}
HIDDEN = {"cached_property"}  # Python 3.11 has a lock in it


def own_locks(tree: ast.Module) -> list[str]:
    """The locks that a module takes from the standard library, under whatever name."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in ("threading", "multiprocessing", "_thread", "functools"):
            found += [alias.name for alias in node.names if alias.name in LOCKS | HIDDEN]
        elif isinstance(node, ast.Attribute) and node.attr in LOCKS | HIDDEN and isinstance(node.value, ast.Name):
            found += [node.attr] if node.value.id in ("threading", "multiprocessing", "functools") else []
        elif isinstance(node, ast.Attribute) and node.attr == "allocate_lock":
            found.append(node.attr)
    return found


def test_all_locks_are_of_the_one_class(modules):
    """Whoever needs a lock takes `sktl._locks.Lock`, which is open in a child."""
    found = {name: locks for name, tree in modules.items() if (locks := own_locks(tree))}
    assert found.pop(_locks.__name__)
    assert found == {}


def test_the_reader_of_locks_sees_all_forms():
    """What the test above rests on."""
    assert own_locks(ast.parse("from threading import Lock as L\nimport threading\nx = threading.RLock()")) == [
        "Lock",
        "RLock",
    ]
    assert own_locks(ast.parse("from functools import cached_property")) == ["cached_property"]
    assert own_locks(ast.parse("from threading import local, get_ident\nfrom sktl._locks import Lock")) == []
