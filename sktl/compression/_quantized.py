"""Classifier whose weights are quantized."""

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
    """Quantize the weights of a trained network.

    Three schemes are available:

    * ``"int8"``: 8 bits per weight. The file is smaller, the network takes less memory
      and is faster on recent CPUs. It changes a few labels in a hundred, or more (see
      Notes).
    * ``"float16"``: 16 bits per weight. The file is smaller; the predictions hardly
      change.
    * ``"codebook"``: ``bits`` bits per weight. The file is smaller; little accuracy is
      lost after training if ``bits`` is 4 or more.

    Read more in the :doc:`user guide </compression>`.

    Parameters
    ----------
    estimator : estimator
        The classifier to compress: a `sktl.FineTunedClassifier`, a
        `sktl.DistilledClassifier`, another compressor that keeps the precision, or a
        search over one of these. It is cloned and fitted, unless it is a fitted
        estimator inside a `sklearn.frozen.FrozenEstimator`, which is used as it is and
        not changed.
    scheme : {"int8", "float16", "codebook"}, default="int8"
        Quantization scheme. ``"int8"`` quantizes weights to integers with one scale per
        output channel, and activations with one range per layer, chosen on training
        images [1]_. The network runs in ONNX Runtime on the CPU, which requires
        ``pip install "sktl[onnx]"``. ``"float16"`` rounds weights to half precision;
        computations use float32. ``"codebook"`` lets the weights of a layer share
        ``2 ** bits`` values, which are found by k-means and then trained [2]_.
    bits : int, default=4
        Number of bits per weight, from 1 to 8. Layers whose filters have fewer weights
        than ``2 ** bits`` (such as depthwise convolutions) use 2 bits more. Only used
        if ``scheme="codebook"``.
    n_calibration : int, default=64
        Number of training images used to choose the ranges of the activations. Only
        used if ``scheme="int8"``.
    freeze_depth : int or str, default=None
        Number of stages to leave unchanged, counted from the input, as in
        `sktl.FineTunedClassifier`; 0 compresses all stages. None leaves the frozen
        stages of the estimator unchanged, so that their cached output is reused.
    max_epochs : int, default=5
        Number of training epochs of the shared values, with the optimizer of the
        estimator. The running statistics of batch normalization layers are updated even
        if the estimator sets ``freeze_bn=True``. If 0, only these statistics and, with
        ``head_init="probe"``, the last layer of the head are refitted. Only used if
        ``scheme="codebook"``; the other schemes do not train.
    lr : float, default=None
        Learning rate of the training after compression. None uses the ``lr`` of the
        estimator.
    lr_decay : float, default=1.0
        Factor by which the learning rate shrinks from each stage to the one before it.
        The default uses the same rate everywhere, since compression changes all stages.
    alpha : float, default=0.5
        Weight of the distillation loss, between 0 and 1. The distillation loss compares
        the outputs with those of the network before compression [3]_. The loss of the
        estimator has the weight ``1 - alpha``.
    temperature : float, default=2.0
        Temperature of the distillation loss, as in `sktl.DistilledClassifier`.
    random_state : int, RandomState instance or None, default=None
        Seed of the choice of calibration images, and of the estimator unless it has its
        own ``random_state``. Pass an int for reproducible results.

    Attributes
    ----------
    estimator_ : estimator
        The fitted classifier with the quantized network. With ``scheme="int8"``, it can
        only predict; otherwise, it can be the ``backbone`` of other estimators.
    classes_ : ndarray of shape (n_classes,)
        The class labels.
    footprint_ : Footprints
        Size, speed and agreement of the original and the compressed classifier.
        Measured on first access.
    n_features_in_ : int
        Number of columns seen during `fit`. Only defined if ``X`` is a table of pixels.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of columns seen during `fit`. Only defined if the column names of ``X``
        are all strings.

    Raises
    ------
    TypeError
        From `fit`, if the estimator does not have an sktl network.
    EngineError
        From `fit`, if ``scheme="int8"`` and the network cannot be exported to ONNX.
    MissingDependencyError
        If ``scheme="int8"`` and the packages of ``sktl[onnx]`` are not installed: from
        `fit`, or from `predict` if the model was unpickled on another machine.

    See Also
    --------
    PrunedClassifier : Prune weights or filters.
    LowRankClassifier : Factorize layers into smaller ones.

    Notes
    -----
    When several compressors are combined, quantization must be the last step, because
    the others would change the rounded weights. Zeros of a pruned network stay zero.

    Integers save time on processors with dot products of 8-bit integers (x86 with VNNI,
    ARM with dotprod). On other processors, the predictions and the file size are the
    same, but the network is slower than with floats in ONNX Runtime; the table of
    ``footprint_`` states whether this applies to the current machine.

    Integers require layers whose activations are of similar size. Networks with ReLU
    (ResNet, VGG, MobileNetV2) lose little accuracy. In MobileNetV3 and EfficientNet,
    some channels are a hundred times as large as others, and the small ones are left
    with only a few different values. Check the agreement in ``footprint_``.

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
    >>> model.score(X[300:500], y[300:500]) > 0.8
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
            check_engine()  # before a long fit

    def _count_epochs(self):
        return self.max_epochs if self.scheme == "codebook" else 0

    def _compress(self, inner, given, tasks):
        """Quantize the network according to ``scheme``."""
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
        """Replace the trained network by an int8 network and drop its float weights."""
        n_rows = len(data.table.images)
        some = np.sort(check_random_state(self.random_state).permutation(n_rows)[: self.n_calibration])
        # Calibrate without augmentation, since predictions use none.
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
        """Recover as other compressors do; a refitted head gets a new codebook."""
        super()._recover(inner, trainer, data)
        layers = compressible(inner.net_.module_)
        self._share({path: layer for path, layer in layers.items() if path.partition(".")[0] == "head"})

    def _share(self, layers):
        """Replace the weights of each layer by shared values."""
        with torch.no_grad():
            for layer in layers.values():
                # Small (depthwise) filters lose most accuracy and take little space.
                n_bits = min(8, self.bits + 2 * (layer.weight[0].numel() < 2**self.bits))
                layer.weight.copy_(share_weights(layer.weight, 2**n_bits, keep_zeros=keeps_zeros(layer)))


def _round_to_half(network):
    """Round trained parameters to half precision unless that overflows."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                rounded = parameter.half().to(parameter.dtype)
                parameter.copy_(rounded.where(rounded.isfinite(), parameter))
