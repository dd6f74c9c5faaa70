"""Quantization: fewer bits for each weight."""

from numbers import Integral

import numpy as np
import torch
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from sktl._estimators._network_estimator import frozen_prefix
from sktl._training._sparsity import keeps_zeros
from sktl.backbones._hollow import hollow
from sktl.compression._codebook import KeepShared, share_weights
from sktl.compression._compressed import COMPRESSION_CONSTRAINTS, CompressedClassifier, adopt_network, compressible
from sktl.compression._int8 import quantize_int8
from sktl.compression._onnx_export import check_engine


class QuantizedClassifier(CompressedClassifier):
    """Store the weights of a network in fewer bits; in 8-bit integers, compute with them too.

    ================  ==============  ===================================  ==========================================
    scheme            bits a weight   what becomes smaller or faster       what it costs
    ================  ==============  ===================================
    ========================================== ``"int8"``        8               file,
    memory; time on new CPUs       a few labels in a hundred, or more (Notes)
    ``"float16"``     16              the file                             next to
    nothing ``"codebook"``    ``bits``        the file little after training, from 4
    bits on ================  ============== ===================================
    ==========================================

    Read more in the user guide, page "Compression".

    Parameters
    ----------
    estimator : estimator
        The classifier to compress: a `sktl.FineTunedClassifier`, a
        `sktl.DistilledClassifier`, another compressor that keeps the precision, or a
        search over one of these. It is cloned and fitted, unless it is a fitted
        estimator inside a `sklearn.frozen.FrozenEstimator`, which is used as it is and
        not changed.
    scheme : {"int8", "float16", "codebook"}, default="int8"
        ``"int8"``: integers for weights, with a scale for each output channel, and for
        activations, with a range for each layer that is found on pictures of the fit
        [1]_. It runs in ONNX Runtime, on the CPU, and needs the extra ``onnx``.
        ``"float16"``: weights are rounded to half precision, and computed with in
        float32. ``"codebook"``: the weights of a layer share ``2 ** bits`` values found
        by k-means, which are then trained [2]_.
    bits : int, default=4
        Of ``scheme="codebook"``: the bits of the number of a weight's value, from 1 to
        8. Layers whose filters have fewer weights than there are values (depthwise
        convolutions) have 2 bits more.
    n_calibration : int, default=64
        Of ``scheme="int8"``: how many pictures of the fit the ranges are found on.
    freeze_depth : int or str, default=None
        How many stages stay as they are, as in `sktl.FineTunedClassifier`; 0 quantises
        the whole network. None: those that the estimator has frozen, whose output stays
        in its cache.
    max_epochs : int, default=5
        Of ``scheme="codebook"``: epochs of training the shared values, with the
        estimator's own optimizer, and with batch norms that learn. With 0 only these
        and the head's start are fitted. The other schemes do not train.
    lr : float, default=None
        Learning rate of that; None takes the estimator's.
    lr_decay : float, default=1.0
        Factor of that from each stage to the one before. By default all learn alike:
        all have lost something.
    alpha : float, default=0.5
        Share of the loss, from 0 to 1, that asks for the answers that the network gave
        before it became smaller [3]_; the rest is the estimator's own loss.
    temperature : float, default=2.0
        What softens these answers, as in `sktl.DistilledClassifier`.
    random_state : int, RandomState instance or None, default=None
        Which pictures are calibrated with. Also the seed of the estimator where it has
        none of its own.

    Attributes
    ----------
    estimator_ : estimator
        The classifier with the quantised network. With ``scheme="int8"`` nothing can be
        trained on from it; otherwise it may be the ``backbone`` of other estimators.
    classes_ : ndarray of shape (n_classes,)
        The class labels.
    footprint_ : Footprints
        What the original and the quantised one cost, and how often they agree.
    n_features_in_ : int
        Number of columns seen during `fit`. Only defined if ``X`` is a table of pixels.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of columns seen during `fit`. Only defined if the column names of ``X``
        are all strings.

    Raises
    ------
    TypeError
        From `fit`, where the estimator has no network of sktl.
    EngineError
        From `fit`, where ``scheme="int8"`` and ONNX cannot express the network.
    MissingDependencyError
        From `fit`, where ``scheme="int8"`` and the extra ``onnx`` is not installed;
        from `predict` too, where such a model was unpickled.

    See Also
    --------
    PrunedClassifier : Fewer weights or filters.
    LowRankClassifier : Fewer weights in each layer, all of them used.

    Notes
    -----
    It is the last step of a stack: what other compressors do with weights would be
    rounded no more. Zeros of a pruned network stay zeros.

    Integers save time on processors with dot products of 8-bit integers (x86 with VNNI,
    ARM with dotprod). On others the predictions are the same and the file is as small,
    and they take longer than floats in ONNX Runtime; ``footprint_`` says where this one
    is no such processor.

    Integers need layers whose activations are alike in size. Networks with ReLU
    (ResNet, VGG, MobileNetV2) lose little; of MobileNetV3's and EfficientNet's, some
    channels are a hundred times as large as others, which then have no more than a few
    different values. See what ``footprint_`` says of the agreement.

    References
    ----------
    .. [1] Jacob et al., "Quantization and Training of Neural Networks for Efficient
           Integer-Arithmetic-Only Inference", CVPR 2018.
    .. [2] Han, Mao and Dally, "Deep Compression: Compressing Deep Neural Networks with
           Pruning, Trained Quantization and Huffman Coding", ICLR 2016.
    .. [3] Polino, Pascanu and Alistarh, "Model Compression via Distillation and
           Quantization", ICLR 2018.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktl import FineTunedClassifier
    >>> from sktl.compression import QuantizedClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> X = X / 16  # 0-16 to 0-1
    >>> network = FineTunedClassifier(max_epochs=2, random_state=0)
    >>> model = QuantizedClassifier(network, random_state=0).fit(X[:300], y[:300])
    >>> bool(model.score(X[300:500], y[300:500]) > 0.8)
    True
    """

    _is_last = True

    _parameter_constraints: dict = {
        **COMPRESSION_CONSTRAINTS,
        "scheme": [StrOptions({"int8", "float16", "codebook"})],
        "bits": [Interval(Integral, 1, 8, closed="both")],
        "n_calibration": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        estimator,
        *,
        scheme="int8",
        bits=4,
        n_calibration=64,
        freeze_depth=None,
        max_epochs=5,
        lr=None,
        lr_decay=1.0,
        alpha=0.5,
        temperature=2.0,
        random_state=None,
    ):
        self.estimator = estimator
        self.scheme = scheme
        self.bits = bits
        self.n_calibration = n_calibration
        self.freeze_depth = freeze_depth
        self.max_epochs = max_epochs
        self.lr = lr
        self.lr_decay = lr_decay
        self.alpha = alpha
        self.temperature = temperature
        self.random_state = random_state

    def _check_parameters(self):
        super()._check_parameters()
        if self.scheme == "int8":
            check_engine()  # before anything is fitted for hours

    def _count_epochs(self):
        return self.max_epochs if self.scheme == "codebook" else 0

    def _compress(self, inner, given, tasks):
        """Quantise as ``scheme`` says."""
        trainer, data = self._prepare(inner, given)
        if self.scheme == "codebook":
            layers = compressible(inner.net_.module_)
            self._share(layers)
            self._retrain(inner, trainer, data, [("keep_shared", KeepShared(list(layers))), tasks])
            return
        if self.scheme == "float16":
            _round_to_half(inner.net_.module_)
        adopt_network(inner)
        if self.scheme == "int8":
            self._make_integers(inner, data)

    def _make_integers(self, inner, data):
        """A net of integers in place of the trained one, of which nothing is kept."""
        n_rows = len(data.table.images)
        some = np.sort(check_random_state(self.random_state).permutation(n_rows)[: self.n_calibration])
        # What it will predict from: the pictures as they are, whatever changed those that were learnt from.
        (activations,) = frozen_prefix(inner, data.depth, inner.cache).run(data.table.images.take(some))
        net = quantize_int8(inner.net_.module_, [activations])
        network = inner.net_.module_
        stages = inner.backbone_.stages[: data.depth]
        frozen = list(inner.backbone_.feature_graph(stages[-1].name).parameters()) if stages else []
        net.counts = (
            sum(parameter.numel() for parameter in frozen) + net.parameters,
            sum(int(torch.count_nonzero(parameter)) for parameter in frozen) + net.nonzero,
            inner.net_.count(inner.backbone_)[2],
        )
        net.left_behind = tuple(network.stages.state_dict())
        inner.backbone_ = hollow(inner.backbone_, net.left_behind)
        inner.net_ = net

    def _recover(self, inner, trainer, data):
        """What helps any compressed network; a head that is found anew gets a codebook anew."""
        super()._recover(inner, trainer, data)
        layers = compressible(inner.net_.module_)
        self._share({path: layer for path, layer in layers.items() if path.partition(".")[0] == "head"})

    def _share(self, layers):
        """Give each layer its codebook."""
        with torch.no_grad():
            for layer in layers.values():
                # Filters of fewer weights than there are values (depthwise ones) suffer most, and take little room.
                n_bits = min(8, self.bits + 2 * (layer.weight[0].numel() < 2**self.bits))
                layer.weight.copy_(share_weights(layer.weight, 2**n_bits, keep_zeros=keeps_zeros(layer)))


def _round_to_half(network):
    """Round what learns to the nearest number in half precision, where that is one."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                rounded = parameter.half().to(parameter.dtype)
                parameter.copy_(rounded.where(rounded.isfinite(), parameter))
