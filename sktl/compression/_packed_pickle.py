"""Fitted classifiers as they are pickled: what is small already, and nothing of what they were made of."""

import pickle
import zlib
from typing import Any, NamedTuple

from sktl._estimators._backbone_parameter import without_networks
from sktl._estimators._network_classifier import NetworkClassifier
from sktl.backbones._hollow import fill, hollow, is_hollow
from sktl.compression._codec import pack, unpack


class Packed(NamedTuple):
    """A fitted classifier to be pickled: its network emptied, and beside it what was in it.

    Attributes
    ----------
    skeleton : bytes
        Its class and state without a number of its network, compressed: hundreds of layers that are described alike.
    frozen : dict of str to Tensor
        What its network holds in front of the cut, as it is.
    trained : dict of str to Encoded
        What it holds behind the cut, in the shortest exact form.
    """

    skeleton: bytes
    frozen: Any
    trained: Any

    @classmethod
    def of(cls, estimator: NetworkClassifier) -> "Packed":
        """What is to be pickled of an estimator."""
        state = {**estimator.__getstate__(), **vars(without_networks(estimator))}  # the latter: its parameters
        net, backbone = state["net_"], state["backbone_"]
        state["net_"] = net.hollow()
        frozen = {name: value for name, value in backbone.module.state_dict().items() if not is_hollow(value)}
        state["backbone_"] = hollow(backbone, frozen)
        skeleton = pickle.dumps((type(estimator), state), pickle.HIGHEST_PROTOCOL)
        return cls(zlib.compress(skeleton), frozen, pack(net.tensors()))

    def estimator(self) -> NetworkClassifier:
        """The estimator again."""
        kind, state = pickle.loads(zlib.decompress(self.skeleton))
        state["backbone_"] = fill(state["backbone_"], self.frozen)
        state["net_"].fill(unpack(self.trained))
        estimator = kind.__new__(kind)
        estimator.__setstate__(state)
        return estimator


def bare(fitted: NetworkClassifier) -> NetworkClassifier:
    """A fitted classifier that predicts the same, without the network that its own was made of."""
    other = object.__new__(type(fitted))
    other.__dict__.update({**vars(fitted), **vars(without_networks(fitted))})
    return other
