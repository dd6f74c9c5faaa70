"""The examples in the docstrings run, offline, and print what they say."""

import doctest
import importlib

import pytest

MODULES = ["sktl", "sktl.backbones", "sktl.exceptions", "sktl.feature_extraction", "sktl.preprocessing"]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    """All examples of what a public module offers, wherever in the package it is defined."""
    module = importlib.import_module(name)
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    things = {name: module} | {f"{name}.{public}": getattr(module, public) for public in module.__all__}
    examples = [example for key, thing in things.items() for example in finder.find(thing, key, globs={})]
    for example in {(example.filename, example.lineno): example for example in examples}.values():
        runner.run(example)
    assert runner.summarize(verbose=False).failed == 0
