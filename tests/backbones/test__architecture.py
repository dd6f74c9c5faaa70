"""What every network by name can be asked, whoever made it."""

import pytest
import torch

from sktl.backbones import load_backbone
from sktl.backbones._architecture import Architecture
from sktl.backbones._registry import find_architecture

NAMES = ["sktl_mini", "resnet18", "squeezenet1_1", "timm:mobilenetv3_small_050"]


@pytest.fixture(params=NAMES)
def architecture(request):
    """One of ours, two of torchvision, one of timm."""
    if request.param.startswith("timm:"):
        pytest.importorskip("timm")
    return find_architecture(request.param)


def test_it_says_what_it_is(architecture):
    """Its name is the one that was given; the best of its published weights is one of them."""
    assert architecture.name in NAMES
    assert len(set(architecture.published)) == len(architecture.published) > 0
    assert architecture.default in architecture.published
    assert architecture.caveat is None
    assert architecture.swept is not architecture.name.startswith("timm:")
    assert architecture.classifies is (architecture.name != "sktl_mini")


def test_it_builds_what_its_weights_fit(architecture):
    """Random networks have the same layers, whether weights follow or not, and take their own images."""
    preprocessing = architecture.preprocessing(architecture.default)
    empty = architecture.build(None, preprocessing).eval()
    state = empty.state_dict()
    built = architecture.build(state, preprocessing)
    built.load_state_dict(architecture.adjust(state))
    with torch.no_grad():
        outputs = built.eval()(torch.zeros(1, 3, *preprocessing.crop_shape))
        torch.testing.assert_close(empty(torch.zeros(1, 3, *preprocessing.crop_shape)), outputs)
    assert outputs.shape[0] == 1


def test_keys_are_left_alone_by_default():
    """A network whose published files have today's names needs no `adjust`."""

    class Smallest(Architecture):
        """What a further source of networks has to say."""

        name, published, default = "smallest", (), None

        def build(self, state, preprocessing):
            return torch.nn.Conv2d(3, 4, 3)

        def fetch(self, weights):
            raise NotImplementedError

        def preprocessing(self, weights, path=None):
            raise NotImplementedError

    state = {"weight": torch.zeros(4, 3, 3, 3)}
    assert Smallest().adjust(state) is state
    assert (Smallest().swept, Smallest().caveat, Smallest().classifies) == (True, None, True)


def test_it_has_to_say_how_it_is_built():
    """A network that cannot be built, fetched or shown an image is none."""
    with pytest.raises(TypeError, match=r"abstract methods? .*build.*fetch.*preprocessing"):
        Architecture()


def test_a_network_by_name_goes_through_it(monkeypatch):
    """`load_backbone` builds, adjusts and asks for the preprocessing of the architecture that has the name."""
    architecture = find_architecture("sktl_mini")
    asked = []
    for name in ("build", "preprocessing", "adjust"):
        method = getattr(type(architecture), name)

        def noted(self, *args, name=name, method=method, **kwargs):
            asked.append(name)
            return method(self, *args, **kwargs)

        monkeypatch.setattr(type(architecture), name, noted)
    load_backbone("sktl_mini", weights=None, random_state=7)
    assert {"build", "preprocessing"} <= set(asked)
