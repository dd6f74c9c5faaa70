"""The tables that are filled in, those of a caller too, and the listeners that are told."""

import numpy as np
import pytest

from sktl._frozen._output_tables import OutputTables
from sktl._frozen._spec import PrefixSpec
from sktl.backbones import load_backbone
from sktl.exceptions import ImageWarning


@pytest.fixture(scope="module")
def spec():
    """The first stage, pooled."""
    return PrefixSpec(load_backbone("sktl_mini"), ["stem"])


def test_listeners_hear_of_every_image(paths, cache, prefix_of, open_images):
    """Progress never goes back and ends at the number of images, from the cache too."""
    for _ in range(2):
        heard = []
        prefix = prefix_of(["layer4"], cache=cache, batch_size=5)
        prefix.run(open_images(paths), [lambda done, n: heard.append((done, n))])
        assert heard == sorted(set(heard))
        assert heard[-1] == (12, 12)


class Store:
    """A store in a file, as little of it as is asked for."""

    def __init__(self, shape):
        self.shape, self.rows = shape, {}

    def __setitem__(self, position, row):
        assert isinstance(position, int)
        self.rows[position] = np.array(row)


@pytest.mark.parametrize("layers", [("layer1", "layer4"), ()])
def test_out_is_written_to_and_returned(paths, cache, layers, prefix_of, open_images):
    """Rows go where the caller wants them, computed or from the cache, into arrays or stores, and nowhere else."""
    prefix = prefix_of(layers, cache=cache)
    images = open_images([*paths, paths[3]])
    stores = [Store((13, *shape)) for shape in prefix.shapes]
    assert prefix.run(images, out=stores) is stores
    arrays = [np.zeros((13, *shape), prefix.dtype) for shape in prefix.shapes]
    assert prefix.run(images, out=arrays) is arrays
    for store, array, expected in zip(stores, arrays, prefix.run(images), strict=True):
        np.testing.assert_array_equal(array, expected)
        np.testing.assert_array_equal([store.rows[position] for position in range(13)], expected)


def test_out_of_another_shape_is_refused_at_once(paths, counted, prefix_of, open_images):
    """Nothing is computed for a store that it does not fit in."""
    prefix = prefix_of(["layer4"])
    with pytest.raises(ValueError, match=r"out must have the shapes \[\(12, 512\)\]. Got \[\(12, 3\)\] instead"):
        prefix.run(open_images(paths), out=[np.empty((12, 3))])
    assert counted["images"] == 0


def test_unreadable_images_become_nan_in_out(paths, prefix_of, open_images):
    """Rows of NaN are written like any other row."""
    with open(paths[2], "wb") as file:
        file.write(b"no image")
    prefix = prefix_of(["layer4"], on_error="nan")
    out = [np.zeros((12, *prefix.shapes[0]), np.float32)]
    with pytest.warns(ImageWarning, match="1 of 12"):
        prefix.run(open_images(paths), out=out)
    assert np.isnan(out[0]).all(1).tolist() == [position == 2 for position in range(12)]


def test_copies_are_filled_at_once_and_what_is_computed_besides_is_left_out(spec):
    """An image that stands at two positions is done at both; a search computes more than there are tables."""
    outputs = OutputTables(spec, 3)
    outputs.fill([0, 2], [np.ones(32), np.zeros(64)])
    assert [outputs.is_done(position) for position in range(3)] == [True, False, True]
    assert (outputs.tables[0][[0, 2]] == 1).all()


def test_what_cannot_be_read_is_filled_but_not_done(spec):
    """Its rows hold one number, in tables of a caller too."""
    table = np.zeros((2, 32), np.float32)
    outputs = OutputTables(spec, 2, [table])
    outputs.fill_with(np.nan, [1])
    assert np.isnan(table).all(1).tolist() == [False, True]
    assert not outputs.is_done(1)


def test_each_number_is_told_once(spec):
    """Of rows that are filled in, and of those that nothing is left to do for."""
    told = []
    outputs = OutputTables(spec, 4, listeners=[lambda *args: told.append(args)])
    outputs.tell()
    for position in (0, 1):
        outputs.fill([position], [np.zeros(32)])
    outputs.tell()
    outputs.tell()
    outputs.tell(3)
    outputs.tell()
    assert told == [(2, 4), (3, 4)]
