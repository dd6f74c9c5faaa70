"""Statistics of batch norms, measured anew: against NumPy, and where there is nothing to measure."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from sktl._training._losses import ClassificationLoss
from sktl._training._rest_network import RestNetwork
from sktl._training._skorch_net import TransferNet
from sktl.compression._batch_norm_recalibration import recalibrate_batch_norms


def make_net(backbone, depth=0, *, freeze_bn=True, batch_size=8):
    network = RestNetwork(backbone, depth, nn.Linear(16, 2), freeze_bn=freeze_bn)
    return TransferNet(network, ClassificationLoss(), batch_size=batch_size, callbacks__print_log=None).initialize()


def norms(net):
    return [module for module in net.module_.modules() if isinstance(module, nn.BatchNorm2d)]


@pytest.mark.parametrize("freeze_bn", [True, False])
def test_the_mean_over_all_batches(backbone, make_rows, freeze_bn):
    """What the first norm has is the mean over the batches of what its input's mean and variance are."""
    net, rows = make_net(backbone, freeze_bn=freeze_bn), make_rows(24)
    conv = net.module_.stages.get_submodule("stem.0")
    means, variances = [], []
    with torch.no_grad():
        for start in (0, 8, 16):
            seen = conv(net.module_.normalization(rows.activations.values[start : start + 8])).numpy()
            means.append(seen.mean((0, 2, 3)))
            variances.append(seen.transpose(1, 0, 2, 3).reshape(8, -1).var(1, ddof=1))
    before = [(norm.momentum, copy.deepcopy(norm.state_dict())) for norm in norms(net)]
    recalibrate_batch_norms(net, rows)
    np.testing.assert_allclose(norms(net)[0].running_mean, np.mean(means, 0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norms(net)[0].running_var, np.mean(variances, 0), rtol=1e-4)
    for norm, (momentum, old) in zip(norms(net), before, strict=True):
        assert norm.momentum == momentum
        assert not norm.training
        assert torch.equal(norm.weight, old["weight"])
        assert not torch.equal(norm.running_mean, old["running_mean"])


def test_only_norms_behind_the_cut(backbone, make_rows):
    """The frozen stage's is not in the net; one that a deeper freezing holds keeps what it has."""
    net, rows = make_net(backbone), make_rows(16)
    net.module_.freeze(2)
    before = [norm.running_mean.clone() for norm in norms(net)]
    recalibrate_batch_norms(net, rows)
    assert [torch.equal(norm.running_mean, old) for norm, old in zip(norms(net), before, strict=True)] == [True] * 2 + [
        False
    ]


def test_one_at_a_time(backbone, make_rows):
    """Statistics are measured on several rows where training takes one by one."""
    one, all_at_once, rows = make_net(backbone, batch_size=1), make_net(backbone, batch_size=5), make_rows(5)
    recalibrate_batch_norms(one, rows)
    recalibrate_batch_norms(all_at_once, rows)
    assert torch.equal(norms(one)[-1].running_var, norms(all_at_once)[-1].running_var)


def test_a_constant_channel(backbone, make_rows):
    """A channel that is the same everywhere keeps the variance that it had."""
    net, rows = make_net(backbone), make_rows(16)
    with torch.no_grad():
        net.module_.stages.get_submodule("stem.0").weight[3] = 0.0
    old = norms(net)[0].running_var[3].item()
    recalibrate_batch_norms(net, rows)
    assert norms(net)[0].running_var[3].item() == old


def test_one_row_has_no_variance(backbone, make_rows):
    """Where there is one row, the statistics stay what they are."""
    net = make_net(backbone)
    before = copy.deepcopy(net.module_.state_dict())
    recalibrate_batch_norms(net, make_rows(1))
    after = net.module_.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_a_last_row_alone_is_passed_over(backbone, make_rows, as_rows):
    """Nine rows in batches of eight give the statistics of the first eight."""
    nine, eight = make_net(backbone), make_net(backbone)
    rows = make_rows(9)
    recalibrate_batch_norms(nine, rows)
    recalibrate_batch_norms(eight, as_rows(rows.activations.values[:8], rows.y[:8]))
    for first, second in zip(norms(nine), norms(eight), strict=True):
        assert torch.equal(first.running_mean, second.running_mean)
        assert torch.equal(first.running_var, second.running_var)
