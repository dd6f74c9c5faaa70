"""Training of a network on images without labels, as a transformer."""

from sklearn.base import TransformerMixin, _fit_context
from sklearn.callback import with_callbacks
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted

from sktl._estimators._checked_table import FitInput
from sktl._estimators._layer_features import feature_names
from sktl._estimators._network_estimator import NETWORK_CONSTRAINTS, NetworkEstimator, frozen_prefix
from sktl._estimators._target_coding import NoTargets
from sktl._frozen._activations import fetch_activations
from sktl._frozen._prefix import FrozenPrefix
from sktl._frozen._progress import PrintedProgress
from sktl._frozen._readable import is_tolerant
from sktl._frozen._runtime import Runtime
from sktl._frozen._spec import PrefixSpec
from sktl._frozen._views import fetch_rotations, fetch_views
from sktl.exceptions import InputError
from sktl.self_supervised._monitor import FeatureMonitor, warn_of_collapse, watched_rows
from sktl.self_supervised._objective import (
    TWO_VIEWS,
    RotationObjective,
    TwoViewObjective,
    ViewsOfImages,
    is_projector,
)

# Parameters of learners with labels.
_LABELED = {"head", "head_init", "dropout", "n_views", "unfreeze_every"}
_VALIDATED = {"early_stopping", "validation_fraction", "n_iter_no_change"}


class SelfSupervisedExtractor(TransformerMixin, NetworkEstimator):
    """Train a network on images without labels, and extract their features.

    The network learns from a task that the images themselves pose, such as to recognize
    two random views of an image. The fitted extractor is a transformer, and can be the
    ``backbone`` of any other estimator of sktl: for example, to fine-tune its network
    with the few labels that there are.

    Read more in the :doc:`user guide </without_labels>`.

    Parameters
    ----------
    backbone : str, Module, Backbone or fitted sktl estimator, default="sktl_mini"
        The pretrained network: a name listed by `sktl.backbones.list_backbones`, a timm
        model as ``"timm:<name>"``, or your own network, which is copied and left
        unchanged. Pass a fitted sktl estimator to start from its trained network.
    task : {"vicreg", "simclr", "rotation"} or callable, default="vicreg"
        What the network learns from. ``"vicreg"`` [1]_ and ``"simclr"`` [2]_ draw two
        random views of each image that must get similar features, while other images
        get other ones; ``"rotation"`` [3]_ recognizes by how many quarter turns an
        image is rotated. A callable ``loss(first, second)`` maps the projections of the
        two views, tensors of shape (n, n_outputs), to a scalar tensor. Set the
        parameters of a loss with ``functools.partial``, as in
        ``partial(nt_xent_loss, temperature=0.2)``.
    weights : str, path-like or None, default="default"
        Weights of a backbone given by name. ``"default"`` takes the best published
        ones, a string such as ``"IMAGENET1K_V1"`` takes published weights by name, a
        path loads a local state dict (``.safetensors``, ``.pt``, ``.ckpt``, ...), and
        None initializes the network at random. For your own network, ``"default"`` and
        None keep its weights, and a path is loaded into the copy.
    freeze_depth : int or str, default=-1
        Number of stages to freeze, counted from the input. 0 trains all stages, as a
        network with random weights needs, a negative number counts from the end (-1
        freezes all but the last stage), and the name of a stage freezes up to and
        including it. Frozen stages run in evaluation mode and are not changed by `fit`.
    projector : tuple of int or Module, default=(512, 512)
        Layers between the features and the loss, used only in training: the widths of
        linear layers, with batch normalization and ReLU between them, or your own
        network, which is copied and maps features of shape (n_samples, n_features) to
        outputs of shape (n_samples, n_outputs). ``task="rotation"`` uses one linear
        layer instead.
    augment : str, callable or None, default="simclr"
        Random changes that the features should ignore, new for each view: the name of a
        recipe, ``"flip"``, ``"crop_flip"``, ``"simclr"`` (crop, flip, brightness,
        contrast, and colors if there are any), ``"trivial"`` or ``"randaugment"``, or a
        callable such as a transform from `torchvision.transforms.v2` that is called
        with the decoded image. Named recipes up to ``"simclr"`` are drawn for a whole
        batch at once and are the fastest. None changes nothing and requires
        ``task="rotation"``.
    max_epochs : int, default=5
        Number of passes over the training images. Training from random weights takes
        more of them.
    lr : float, default=0.001
        Learning rate of the projector and, with ``lr_decay=1.0``, of all stages.
    batch_size : int, default=256
        Number of images per training step. The images of a batch are compared with each
        other, so that small batches learn worse. A last batch of a single image is
        merged with the one before it.
    lr_decay : float, default=1.0
        Factor by which the learning rate shrinks from each stage to the one before it:
        the last stage is trained with ``lr * lr_decay``, the one before it with
        ``lr * lr_decay ** 2``, and so on. Use 1.0 for the same rate everywhere.
    lr_schedule : {"cosine", "linear", "constant"}, default="cosine"
        Schedule of all learning rates over the epochs of `fit`. `partial_fit` keeps
        them constant.
    optimizer : {"adamw", "adam", "sgd"} or type, default="adamw"
        The optimizer; ``"sgd"`` uses Nesterov momentum of 0.9. Any class from
        `torch.optim` that accepts parameter groups also works.
    weight_decay : float, default=0.01
        Weight decay (L2 regularization) of the optimizer. It is not applied to
        normalization layers and biases.
    pooling : {"avg", "max", "gem", "flatten", "cls"}, default="avg"
        How the output of the last stage is pooled to the features, as in
        `sktl.PretrainedFeatureExtractor`.
    freeze_bn : bool, default=False
        Whether the batch normalization layers of trained stages keep their running
        statistics. Their scales and shifts are trained either way. Ignored for a
        network with random weights, whose statistics are always updated.
    unlabeled : object, default=None
        Label that marks unlabeled images in ``y``, such as -1. Missing labels (None or
        NaN) are unlabeled as well.
    warm_start : bool, default=False
        Whether `fit` continues from the weights of the previous call, with the current
        parameters: for example, to train more stages at a lower rate. The network, its
        projector and its preprocessing stay those of the first call.
    callbacks : list of skorch callbacks, default=None
        skorch callbacks to run during training. For scikit-learn's callbacks, use
        `set_callbacks`.
    net_params : dict, default=None
        Further parameters of the underlying skorch net, such as
        ``{"optimizer__betas": (0.9, 0.99)}``. They take precedence over the parameters
        above.
    in_channels : int, default=3
        Number of channels of the network's input: 3 for color, 1 for grayscale, more
        for multispectral images. The first convolution is adapted if the pretrained
        network has another number.
    image_shape : tuple of (height, width) or (height, width, channels), default=None
        Shape of each image if ``X`` holds flat rows of pixels. If None, the images are
        assumed to be square, with one or three channels. Ignored for other kinds of
        ``X``.
    channels : {"auto", "first", "last"}, default="auto"
        Position of the channel axis in arrays. ``"auto"`` infers it from the shape and
        raises an error if that is ambiguous.
    preprocessing : Preprocessing or dict, default=None
        Size, crop, interpolation, mean and standard deviation used to prepare the
        images. None uses the preprocessing of the weights.
    on_error : {"raise", "nan"}, default="raise"
        What to do if an image cannot be read. ``"raise"`` raises an error that lists
        the unreadable images. ``"nan"`` leaves them out of `fit` with one warning and
        returns rows of NaN from `transform`. Use
        `sktl.datasets.find_unreadable_images` to list them in advance.
    cache : "auto", path-like or None, default="auto"
        Where to keep decoded images during `fit` and features after `transform`: in the
        memory of this process up to a limit (``"auto"``), or in a directory shared by
        processes and runs. None keeps nothing: images are decoded again in each epoch.
    engine : {"auto", "torch", "onnxruntime"}, default="auto"
        Engine that runs the frozen stages. ``"auto"`` picks the fastest available one
        for the number of images.
    precision : {"float32", "bfloat16", "float16"}, default="float32"
        Floating-point precision of the frozen stages. Lower precision is faster on
        hardware that supports it and rounds the result.
    device : str or torch.device, default="auto"
        Device that runs the network, such as ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
        ``"auto"`` uses CUDA if available and the CPU otherwise.
    n_jobs : int, default=None
        Number of threads that read and decode images. None uses as many as torch does.
    random_state : int, RandomState instance or None, default=None
        Seed of the projector, the order of the images, their views and dropout, and of
        random weights. Pass an int for reproducible results on the same machine with
        the same number of threads.
    verbose : int, default=0
        Verbosity level: 1 prints the progress of the frozen stages and one line per
        epoch.

    Attributes
    ----------
    backbone_ : Backbone
        The trained network, with its stages, weights and preprocessing.
    net_ : skorch.NeuralNet
        The trained stages and the projector as a skorch net.
    history_ : skorch.history.History
        Training history, one row per epoch: ``train_loss``, ``lr`` (of the projector)
        and ``dur`` (seconds). Three numbers tell whether the features of up to 1,000
        images, without augmentation, are of use: ``std``, the mean standard deviation
        of the normalized features times the root of their number, from 0 (collapsed) to
        1; ``effective_rank`` [4]_, from 1 (collapsed) to their number; and, if ``y``
        has labels of at least two classes, ``knn_accuracy``, the accuracy of the five
        nearest neighbors among the other labeled images.
    freeze_depth_ : int
        Number of frozen stages.
    n_iter_ : int
        Number of epochs that were trained.
    best_epoch_ : int
        The epoch whose weights were kept: the last one, unless training diverged.
    image_format_ : ImageFormat
        Format of the images seen during `fit`: kind, image shape, channel axis and
        value range.
    n_features_in_ : int
        Number of columns seen during `fit`. Only defined if ``X`` is a table of pixels.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of columns seen during `fit`. Only defined if the column names of ``X``
        are all strings.

    Raises
    ------
    ImageError
        If ``X`` does not contain images, or an image cannot be read.
    BackboneError
        From `fit`, if the backbone or the stage passed as ``freeze_depth`` does not
        exist; the message lists the stages.
    DivergenceError
        From `fit`, if the loss, the weights or the outputs become NaN or infinite. The
        estimator keeps the weights of the last good epoch.
    KeyboardInterrupt
        From `fit`, if it was interrupted with Ctrl-C. The estimator keeps the weights
        of the last complete epoch; a search around it stops as well.
    WeightsDownloadError, WeightsMismatchError, FileNotFoundError
        From `fit`, if the weights cannot be downloaded, belong to another network, or
        their file does not exist.
    ValueError
        From `fit`, if a parameter is invalid, all stages are frozen, or there are fewer
        than two different images.

    Warns
    -----
    TrainingWarning
        From `fit`, if the features collapsed: they hardly differ between images.

    See Also
    --------
    sktl.FineTunedClassifier : Fine-tune a pretrained network for image classification.
    sktl.PretrainedFeatureExtractor : Extract features of a frozen network.
    sktl.autoencoders.Autoencoder : Learn a code from which images are reconstructed.
    vicreg_loss : The loss of ``task="vicreg"``.
    nt_xent_loss : The loss of ``task="simclr"``.

    Notes
    -----
    Labels are never learned from: the weights are the same with and without ``y``.
    Equal images count once.

    A network that ships with weights is hard to beat with a few thousand images. Use
    this estimator if the images differ from those of the pretrained networks, and
    thousands of them have no labels. Compare with
    `sktl.PretrainedFeatureExtractor` first.

    To train on a similar task that has labels, use `sktl.FineTunedClassifier` with
    ``freeze_depth=0``, and its fitted classifier as ``backbone``.

    References
    ----------
    .. [1] Bardes et al., "VICReg: Variance-Invariance-Covariance Regularization for
           Self-Supervised Learning", ICLR 2022.
    .. [2] Chen et al., "A Simple Framework for Contrastive Learning of Visual
           Representations", ICML 2020.
    .. [3] Gidaris et al., "Unsupervised Representation Learning by Predicting Image
           Rotations", ICLR 2018.
    .. [4] Garrido et al., "RankMe: Assessing the Downstream Performance of Pretrained
           Self-Supervised Representations by Their Rank", ICML 2023.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sktl import FineTunedClassifier
    >>> from sktl.self_supervised import SelfSupervisedExtractor
    >>> X, y = load_digits(return_X_y=True)
    >>> X = X / 16  # 0-16 to 0-1
    >>> encoder = SelfSupervisedExtractor(max_epochs=2, random_state=0)
    >>> encoder.fit_transform(X[:200]).shape
    (200, 512)
    >>> model = FineTunedClassifier(FrozenEstimator(encoder), random_state=0)
    >>> model.fit(X[:50], y[:50]).score(X[200:400], y[200:400]) > 0.7
    True
    """

    _parameter_constraints: dict = {
        **{name: rule for name, rule in NETWORK_CONSTRAINTS.items() if name not in _LABELED | _VALIDATED},
        "task": [StrOptions({*TWO_VIEWS, "rotation"}), callable],
        "projector": "no_validation",  # is_projector checks it
        "unlabeled": "no_validation",  # any label
    }

    def __init__(
        self,
        backbone="sktl_mini",
        *,
        task="vicreg",
        weights="default",
        freeze_depth=-1,
        projector=(512, 512),
        augment="simclr",
        max_epochs=5,
        lr=0.001,
        batch_size=256,
        lr_decay=1.0,
        lr_schedule="cosine",
        optimizer="adamw",
        weight_decay=0.01,
        pooling="avg",
        freeze_bn=False,
        unlabeled=None,
        warm_start=False,
        callbacks=None,
        net_params=None,
        in_channels=3,
        image_shape=None,
        channels="auto",
        preprocessing=None,
        on_error="raise",
        cache="auto",
        engine="auto",
        precision="float32",
        device="auto",
        n_jobs=None,
        random_state=None,
        verbose=0,
    ):
        self.backbone = backbone
        self.task = task
        self.weights = weights
        self.freeze_depth = freeze_depth
        self.projector = projector
        self.augment = augment
        self.max_epochs = max_epochs
        self.lr = lr
        self.batch_size = batch_size
        self.lr_decay = lr_decay
        self.lr_schedule = lr_schedule
        self.optimizer = optimizer
        self.weight_decay = weight_decay
        self.pooling = pooling
        self.freeze_bn = freeze_bn
        self.unlabeled = unlabeled
        self.warm_start = warm_start
        self.callbacks = callbacks
        self.net_params = net_params
        self.in_channels = in_channels
        self.image_shape = image_shape
        self.channels = channels
        self.preprocessing = preprocessing
        self.on_error = on_error
        self.cache = cache
        self.engine = engine
        self.precision = precision
        self.device = device
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Train the network on images without labels.

        Parameters
        ----------
        X : array-like of images
            Paths, images, a batch array or rows of pixels; see the user guide.
        y : array-like of shape (n_samples,), default=None
            Labels of the images, as far as they are known. They are not learned from;
            ``history_`` tells after each epoch how well the features separate them.

        Returns
        -------
        self : SelfSupervisedExtractor
            The fitted estimator.
        """
        return self._fit(FitInput(X, y))

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y=None):
        """Train for one epoch on the given images.

        Call this method several times to train on data that arrives in parts. The
        learning rates are constant, and ``max_epochs`` and ``lr_schedule`` are ignored.
        The network is built in the first call, unless `fit` was called before;
        parameters that are changed afterwards take effect in the next `fit`.

        Parameters
        ----------
        X : array-like of images
            Paths, images, a batch array or rows of pixels; see the user guide.
        y : array-like of shape (n_samples,), default=None
            Labels of the images, as far as they are known. They are not learned from;
            ``history_`` tells after each epoch how well the features separate them.

        Returns
        -------
        self : SelfSupervisedExtractor
            The fitted estimator.
        """
        return self._fit_step(FitInput(X, y))

    def transform(self, X):
        """Return the features of images.

        Parameters
        ----------
        X : array-like of images
            Images of the same kind as in `fit`.

        Returns
        -------
        features : ndarray of shape (n_samples, n_features), float32
            Output of the last stage, pooled.
        """
        check_is_fitted(self, "net_")
        images = self._check_images(X, reset=False)
        on_error = "nan" if is_tolerant(self, images.on_error) else "raise"
        prefix = FrozenPrefix(self._spec(), Runtime.of(self, on_error=on_error))
        return prefix.run(images, [PrintedProgress(self)] if self.verbose else [])[0]

    def get_feature_names_out(self, input_features=None):
        """Return the names of the features, such as ``resnet18_layer4_17``.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Ignored. Present for compatibility with scikit-learn.

        Returns
        -------
        names : ndarray of shape (n_features,), dtype object
            Backbone, layer and position of each feature.
        """
        check_is_fitted(self, "net_")
        return feature_names(self._spec())

    def _check_parameters(self):
        """Check what depends on the task."""
        if not is_projector(self.projector):
            raise InputError(
                "The 'projector' parameter of SelfSupervisedExtractor must be a tuple of positive widths such as "
                f"(512, 512), or an nn.Module. Got {self.projector!r} instead."
            )
        if self.task != "rotation" and self.augment is None:
            raise InputError(
                f"task={self.task!r} compares two random views of each image, which are equal with augment=None. Use "
                "augment='simclr', or task='rotation', which needs no augmentation."
            )
        if isinstance(self.task, str) and self.task in TWO_VIEWS and self.batch_size == 1:
            raise InputError(
                f"task={self.task!r} compares the images of a batch with each other and needs at least two. Got "
                "batch_size=1 instead. Use a larger batch_size, such as 256."
            )

    def _resolve_depth(self, table, is_new):
        """Return the number of frozen stages; at least one stage must be trained."""
        depth = super()._resolve_depth(table, is_new)
        if depth == len(self.backbone_.stages):
            raise InputError(
                f"freeze_depth={self.freeze_depth!r} leaves no stage of {self.backbone_.name!r} to train. Use -1 to "
                "train the last stage, or sktl.PretrainedFeatureExtractor for the features of a frozen network."
            )
        return depth

    def _make_coding(self, is_new, classes):
        """Return no targets, because labels are not learned from."""
        return NoTargets(type(self).__name__)

    def _make_objective(self, coding, table, depth, seed):
        """Return the objective of the task."""
        if len(table.y) < 2:
            raise InputError(
                "SelfSupervisedExtractor needs at least two different images. Got one image instead: n_samples=1, or "
                "all images are equal."
            )
        if self.task == "rotation":
            return RotationObjective()
        return TwoViewObjective(self.task if callable(self.task) else TWO_VIEWS[self.task], self.projector)

    def _dataset(self, table, depth, objective, augmentation=None):
        """Return the output of the frozen stages for the views of each image."""
        prefix = frozen_prefix(self, depth, self.cache)
        listeners = [PrintedProgress(self)] if self.verbose and self.cache is not None else []
        if self.task == "rotation":
            views = fetch_rotations(prefix, table.images, augmentation, listeners=listeners)
        else:
            views = fetch_views(prefix, table.images, augmentation, objective.n_views, listeners=listeners)
        rows = ViewsOfImages(views, objective.n_views)
        return table.dataset(rows, objective.targets(table), objective.columns(table))

    def _watchers(self, data):
        """Watch the features of some images, without augmentation."""
        rows, n_sample, labels = watched_rows(data.table, self.unlabeled, data.seed)
        prefix = frozen_prefix(self, data.depth, self.cache)
        activations = fetch_activations(prefix, data.table.images.take(rows), stored=self.cache is not None)
        return [("feature_monitor", FeatureMonitor(activations, n_sample, labels))]

    def _finish(self, trainer, data):
        """Warn if the features collapsed."""
        if self.n_iter_:
            ((n_features,),) = self._spec().shapes
            warn_of_collapse(self.history_[-1], n_features, len(data.table.y))

    def _spec(self):
        """Return the whole network, whose pooled output is the features."""
        return PrefixSpec(self.backbone_, [self.backbone_.stages[-1].name], self._pooling)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags
