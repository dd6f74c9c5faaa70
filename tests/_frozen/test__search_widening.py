"""A search over layers costs two passes, and brings no more than it needs."""

import numpy as np

from sktl._frozen._cache import open_cache
from sktl._frozen._prefix import FrozenPrefix
from sktl._frozen._runtime import Runtime
from sktl._frozen._spec import PrefixSpec
from sktl.backbones import load_backbone


def test_a_search_over_layers_is_one_pass_through_the_whole_network(paths, cache, counted, run):
    """The second layer asked of the same images brings all stages with it; the others are found."""
    backbone = load_backbone("sktl_mini")
    stages = [stage.name for stage in backbone.stages]
    got = [run(paths, layers=(stage,), cache=cache)[0] for stage in stages]
    got += run(paths, layers=tuple(stages[-2:]), cache=cache)
    assert counted["images"] == 2 * len(paths)
    want = [*run(paths, layers=tuple(stages)), *run(paths, layers=tuple(stages[-2:]))]
    for x, y in zip(got, want, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def test_a_search_over_freeze_depths_is_two_passes(paths, cache, counted, open_images):
    """First all stages frozen and pooled, then raw activations: the second brings those that are no larger."""
    backbone = load_backbone("mobilenet_v3_small", weights=None, random_state=0)

    def activations(layer, pooling):
        return FrozenPrefix(PrefixSpec(backbone, [layer], pooling), Runtime(cache=cache)).run(open_images(paths))[0]

    last, second, third = (stage.name for stage in backbone.stages[:-4:-1])
    activations(last, "avg")
    got = [activations(second, "none"), activations(third, "none")]
    assert counted["images"] == 2 * len(paths)
    for layer, rows in zip((second, third), got, strict=True):
        (expected,) = FrozenPrefix(PrefixSpec(backbone, [layer], "none"), Runtime(cache=None)).run(open_images(paths))
        np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-5)
    asked, *brought = [np.prod(backbone.output_shape(layer)) for layer in counted["layers"][1]]
    assert brought
    assert max(brought) <= asked


def test_the_same_layer_twice_in_a_search(paths, cache, run):
    """Where every stage is computed, a layer that is asked for twice fills both of its places."""
    run(paths, layers=("layer1",), cache=cache)
    got = run(paths, layers=("layer2", "layer2"), cache=cache)
    (expected,) = run(paths, layers=("layer2",))
    for output in got:
        np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)


def test_a_search_computes_only_the_stages_that_are_not_known(paths, cache, counted, run):
    """A shallow layer after the deepest one brings the stages between them, not the deepest one again."""
    run(paths, layers=("layer4",), cache=cache)
    run(paths, layers=("stem",), cache=cache)
    assert counted["layers"] == [("layer4",), ("stem", "layer1", "layer2", "layer3")]


def test_images_are_no_layer_of_a_search(paths, cache, counted, run):
    """Stored images bring no stages with them, nor known stages the images or more stages."""
    run(paths, layers=("layer1",), cache=cache)
    run(paths, layers=(), cache=cache)
    run(paths, layers=(), cache=cache)
    assert counted["layers"] == [("layer1",), ()]
    open_cache(cache).clear()
    run(paths, layers=(), cache=cache)
    run(paths, layers=("layer2",), cache=cache)
    assert counted["layers"][2:] == [(), ("layer2",)]
