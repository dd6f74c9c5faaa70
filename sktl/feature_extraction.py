"""Feature extraction with pretrained networks."""

from numbers import Integral

from sklearn.base import TransformerMixin, _fit_context
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted

from sktl._estimators._backbone_parameter import BACKBONE_CONSTRAINTS, resolve_backbone
from sktl._estimators._layer_features import extractor_prefix, feature_names, joined_features, name_layers
from sktl._frozen._prefix_network import POOLINGS
from sktl._frozen._progress import CallbackProgress, start_task
from sktl._frozen._runtime import RUNTIME_CONSTRAINTS
from sktl._frozen._spec import PrefixSpec
from sktl._images import check_images
from sktl._params import Estimator
from sktl.exceptions import InputError

__all__ = ["PretrainedFeatureExtractor"]


class PretrainedFeatureExtractor(CallbackSupportMixin, TransformerMixin, Estimator):
    """Extract image features with a pretrained network.

    The network is frozen: it turns each image into a fixed vector of features that any
    scikit-learn estimator can use [1]_, [2]_. Features are computed once per image and
    kept in a cache, so that further folds, candidates of a grid search and calls of
    `transform` take almost no time. Use `sktl.FineTunedClassifier` to train part of the
    network as well.

    Read more in the :doc:`user guide </features>`.

    Parameters
    ----------
    backbone : str, Module, Backbone or fitted sktl estimator, default="sktl_mini"
        The pretrained network: a name listed by `sktl.backbones.list_backbones`, a timm
        model as ``"timm:<name>"``, or your own network, which is copied and left
        unchanged. Pass a fitted sktl estimator to reuse its trained network.
        ``"sktl_mini"`` ships with sktl and needs no download.
    weights : str, path-like or None, default="default"
        Weights of a backbone given by name. ``"default"`` takes the best published
        ones, a string such as ``"IMAGENET1K_V1"`` takes published weights by name, a
        path loads a local state dict (``.safetensors``, ``.pt``, ``.ckpt``, ...), and
        None initializes the network at random. For your own network, ``"default"`` and
        None keep its weights, and a path is loaded into the copy.
    layers : int, str or list of these, default=-1
        Layers whose output to use as features: the number of a stage (-1 is the last
        one), the name of a stage, or the name of any other layer in
        ``Backbone.layers``. The features of several layers are concatenated. Layers
        after the deepest one are not computed.
    pooling : {"avg", "max", "gem", "flatten", "cls", "none"}, default="avg"
        How the output of each layer is reduced to a vector: ``"avg"``, ``"max"`` and
        ``"gem"`` take the mean, the maximum and the generalized mean (p = 3) of each
        channel over all positions, ``"flatten"`` keeps all values, and ``"cls"`` takes
        the class token of a vision transformer. ``"none"`` returns the output of a
        single layer in its original shape.
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
    engine : {"auto", "torch", "onnxruntime"}, default="auto"
        Engine that runs the network. ``"auto"`` picks the fastest available one for the
        number of images, including its start-up time.
    precision : {"float32", "bfloat16", "float16"}, default="float32"
        Floating-point precision of the network. Lower precision is faster on hardware
        that supports it and rounds the features.
    batch_size : int or "auto", default="auto"
        Number of images that go through the network at once. Affects speed and memory
        use, not the result.
    cache : "auto", path-like or None, default="auto"
        Where to keep the features: in the memory of this process up to a limit
        (``"auto"``), or in a directory shared by processes and runs. None keeps
        nothing: each call computes the features again.
    device : str or torch.device, default="auto"
        Device that runs the network, such as ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
        ``"auto"`` uses CUDA if available and the CPU otherwise.
    n_jobs : int, default=None
        Number of threads that read and decode images. None uses as many as torch does.
    on_error : {"raise", "nan"}, default="raise"
        What to do if an image cannot be read. ``"raise"`` raises an error that lists
        the unreadable images. ``"nan"`` returns rows of NaN for them, with one warning.
        Flat rows of pixels that contain NaN raise an error in either case, as in
        scikit-learn. Use `sktl.datasets.find_unreadable_images` to list unreadable
        images in advance.
    random_state : int, RandomState instance or None, default=None
        Seed of the random weights. Only used if ``weights=None``.
    verbose : int, default=0
        Verbosity level: 1 prints the progress and the speed of `transform`.

    Attributes
    ----------
    backbone_ : Backbone
        The network, with its stages, weights and preprocessing.
    layers_ : list of str
        Names of the layers whose output is used.
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
        From `fit`, if the backbone or a layer does not exist, or a layer has no class
        token for ``pooling="cls"``.
    WeightsDownloadError
        From `fit`, if published weights cannot be downloaded. The message explains how
        to use a local file.
    WeightsMismatchError
        From `fit`, if a weights file belongs to another network.
    FileNotFoundError
        From `fit`, if a weights file does not exist.
    MissingDependencyError
        If the package of a timm backbone or of ``engine`` is not installed.
    EngineError
        From `transform`, if ``engine="onnxruntime"`` cannot run the network.
    ValueError
        From `fit`, if a parameter is invalid, the device is not available, or
        ``engine``, ``precision`` and ``device`` cannot be combined.

    See Also
    --------
    sktl.FineTunedClassifier : Fine-tune a pretrained network for image classification.
    sktl.backbones.describe_backbone : List the stages of a network.
    sktl.preprocessing.PixelRowsToImages : Reshape flat rows of pixels into images.

    Notes
    -----
    The features of an image depend only on that image. They do not depend on the batch,
    the engine or the cache, up to float32 rounding (relative differences of about
    1e-6).

    The pickle of a fitted extractor contains the weights, so that loading it needs no
    other file and no download.

    References
    ----------
    .. [1] Donahue et al., "DeCAF: A Deep Convolutional Activation Feature for Generic
           Visual Recognition", ICML 2014.
    .. [2] Razavian et al., "CNN Features off-the-shelf: an Astounding Baseline for
           Recognition", CVPRW 2014.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sktl import PretrainedFeatureExtractor
    >>> X, y = load_digits(return_X_y=True)
    >>> X = X / 16  # 0-16 to 0-1
    >>> pipe = make_pipeline(
    ...     PretrainedFeatureExtractor(), StandardScaler(), LogisticRegression(C=0.1)
    ... )
    >>> round(pipe.fit(X[:300], y[:300]).score(X[300:500], y[300:500]), 1)
    0.9
    """

    _parameter_constraints: dict = {
        **BACKBONE_CONSTRAINTS,
        **RUNTIME_CONSTRAINTS,
        "layers": [str, Integral, list, tuple],
        "pooling": [StrOptions(set(POOLINGS))],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        backbone="sktl_mini",
        *,
        weights="default",
        layers=-1,
        pooling="avg",
        in_channels=3,
        image_shape=None,
        channels="auto",
        preprocessing=None,
        engine="auto",
        precision="float32",
        batch_size="auto",
        cache="auto",
        device="auto",
        n_jobs=None,
        on_error="raise",
        random_state=None,
        verbose=0,
    ):
        self.backbone = backbone
        self.weights = weights
        self.layers = layers
        self.pooling = pooling
        self.in_channels = in_channels
        self.image_shape = image_shape
        self.channels = channels
        self.preprocessing = preprocessing
        self.engine = engine
        self.precision = precision
        self.batch_size = batch_size
        self.cache = cache
        self.device = device
        self.n_jobs = n_jobs
        self.on_error = on_error
        self.random_state = random_state
        self.verbose = verbose

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Load the network and infer the image format of ``X``.

        Features are not computed until `transform`.

        Parameters
        ----------
        X : array-like of images
            Paths, images, a batch array or rows of pixels; see the user guide.
        y : None
            Ignored.

        Returns
        -------
        self : PretrainedFeatureExtractor
            The fitted estimator.
        """
        context = start_task(self)
        context.call_on_fit_task_begin(estimator=self, X=X, y=y)
        self._fit(X)
        context.call_on_fit_task_end(estimator=self, X=X, y=y)
        return self

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit_transform(self, X, y=None):
        """Fit to ``X`` and return its features.

        Parameters
        ----------
        X : array-like of images
            Paths, images, a batch array or rows of pixels; see the user guide.
        y : None
            Ignored.

        Returns
        -------
        features : ndarray of shape (n_samples, n_features), float32
            Features of the images. With ``pooling="none"``, the output of the layer,
            such as an array of shape (n_samples, channels, height, width).
        """
        context = start_task(self, max_subtasks=CallbackProgress.N_STEPS)
        context.call_on_fit_task_begin(estimator=self, X=X, y=y)
        images = self._fit(X)
        features = joined_features(self, images, CallbackProgress(self, context, X, y))
        context.call_on_fit_task_end(estimator=self, X=X, y=y)
        return features

    def transform(self, X):
        """Return the features of images.

        Parameters
        ----------
        X : array-like of images
            Images of the same kind as in `fit`.

        Returns
        -------
        features : ndarray of shape (n_samples, n_features), float32
            Features of the images. With ``pooling="none"``, the output of the layer,
            such as an array of shape (n_samples, channels, height, width).
        """
        check_is_fitted(self, "layers_")
        return joined_features(self, check_images(self, X, reset=False))

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
        check_is_fitted(self, "layers_")
        if self.pooling == "none":
            raise InputError(
                "get_feature_names_out needs features in columns, but pooling='none' returns arrays. Use "
                "pooling='flatten' instead."
            )
        return feature_names(PrefixSpec(self.backbone_, self.layers_, self.pooling))

    def _fit(self, X):
        """Check the images, load the network and find the layers."""
        images = check_images(self, X, reset=True)
        self.backbone_ = resolve_backbone(self)
        self.layers_ = name_layers(self.backbone_, self.layers, self.pooling)
        if self.pooling == "none" and len(self.layers_) > 1:
            raise InputError(
                f"pooling='none' supports only one layer, because layers can have different shapes. Got "
                f"layers={self.layers!r} instead. Use one layer, or pooling='flatten'."
            )
        extractor_prefix(self)  # raises an error if, for example, the device is not available
        return images

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = []
        return tags
