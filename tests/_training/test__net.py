"""What estimators ask of a fitted network."""

import pickle

import pytest
import torch
from torch import nn

from sktl._training._net import Net, count_parts


def test_a_net_answers_for_itself(tiny, make_net):
    """It is one that others may go on with, and has nothing to be said of its time."""
    net = make_net(tiny, 1)
    assert isinstance(net, Net)
    assert net.is_trainable
    assert net.note == ""
    assert net.content() is net.module_


def test_nothing_is_left_to_be_answered():
    """Whatever is to be an estimator's net has to answer all that is asked of one."""
    with pytest.raises(TypeError, match="abstract"):
        type("Half", (Net,), {"outputs": lambda self, activations: activations})()


@pytest.mark.parametrize("depth", [0, 1, "all"])
def test_the_backbone_is_pickled_beside_the_net(tiny, make_net, depth):
    """What was trained is not in it twice, and there again afterwards; where nothing was, the backbone stays."""
    depth = len(tiny.stages) if depth == "all" else depth
    net = make_net(tiny, depth)
    hollow = net.hollow_backbone(tiny)
    held = net.module_.stages.state_dict()
    assert (hollow is tiny) == (not held)
    if held:
        assert len(pickle.dumps(hollow)) < len(pickle.dumps(tiny))
    again = net.fill_backbone(pickle.loads(pickle.dumps(hollow)))
    assert again.fingerprint(tiny.stages[-1].name) == tiny.fingerprint(tiny.stages[-1].name)
    expected = tiny.module.state_dict()
    for name, value in again.module.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)


def test_what_is_counted(tiny, make_net):
    """All stages and the head: parameters, those that are not zero, and products."""
    net = make_net(tiny, 1)
    with torch.no_grad():
        for parameter in tiny.module.parameters():
            parameter.fill_(1)
        net.module_.head[-1].weight.fill_(0)
        net.module_.head[-1].bias.fill_(1)
    n_backbone, n_weights, n_biases = 108 + 8 + 216 + 6 + 12 + 432 + 8 + 16, 2 * 8, 2
    products = 8 * 8 * 108 + 3 * 3 * 216 + 3 * 3 * 432
    n_parameters = n_backbone + n_weights + n_biases
    assert net.count(tiny) == (n_parameters, n_parameters - n_weights, products + n_weights)
    alone = count_parts(tiny.feature_graph(tiny.stages[-1].name), nn.Identity())
    assert alone == (n_backbone, n_backbone, products)
