"""Compact pickles of fitted classifiers, without the models they were made from."""

import pickle
import zlib
from typing import Any, NamedTuple

from sktl._estimators._backbone_parameter import without_networks
from sktl._estimators._network_classifier import NetworkClassifier
from sktl.backbones._hollow import fill, hollow, is_hollow
from sktl.compression._codec import pack, unpack


class Packed(NamedTuple):
    """A fitted classifier split into a skeleton and the tensors of its network.

    Attributes
    ----------
    skeleton : bytes
        Compressed class and state, without the tensors of the network.
    frozen : dict of str to Tensor
        Tensors of the frozen stages.
    trained : dict of str to Encoded
        Tensors after the frozen stages, in their shortest exact form.
    """

    skeleton: bytes
    frozen: Any
    trained: Any

    @classmethod
    def of(cls, estimator: NetworkClassifier) -> "Packed":
        """Split an estimator for pickling."""
        state = {**estimator.__getstate__(), **vars(without_networks(estimator))}  # the latter has the parameters
        net, backbone = state["net_"], state["backbone_"]
        state["net_"] = net.hollow()
        frozen = {name: value for name, value in backbone.module.state_dict().items() if not is_hollow(value)}
        state["backbone_"] = hollow(backbone, frozen)
        skeleton = pickle.dumps((type(estimator), state), pickle.HIGHEST_PROTOCOL)
        return cls(zlib.compress(skeleton), frozen, pack(net.tensors()))

    def estimator(self) -> NetworkClassifier:
        """Restore the estimator."""
        kind, state = pickle.loads(zlib.decompress(self.skeleton))
        state["backbone_"] = fill(state["backbone_"], self.frozen)
        state["net_"].fill(unpack(self.trained))
        estimator = kind.__new__(kind)
        estimator.__setstate__(state)
        return estimator


def bare(fitted: NetworkClassifier) -> NetworkClassifier:
    """Return a fitted classifier without a network that was passed as a parameter."""
    other = object.__new__(type(fitted))
    other.__dict__.update({**vars(fitted), **vars(without_networks(fitted))})
    return other
