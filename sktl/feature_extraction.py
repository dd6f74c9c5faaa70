"""Features of a pretrained network for any scikit-learn estimator."""

from numbers import Integral

import numpy as np
from sklearn.base import TransformerMixin, _fit_context
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted

from sktl._estimators._backbone_parameter import BACKBONE_CONSTRAINTS, resolve_backbone
from sktl._estimators._layer_features import extractor_prefix, joined_features, name_layers
from sktl._frozen._prefix_network import POOLINGS
from sktl._frozen._progress import CallbackProgress, start_task
from sktl._frozen._runtime import RUNTIME_CONSTRAINTS
from sktl._frozen._spec import PrefixSpec
from sktl._images import check_images
from sktl._params import Estimator
from sktl.exceptions import InputError

__all__ = ["PretrainedFeatureExtractor"]


class PretrainedFeatureExtractor(CallbackSupportMixin, TransformerMixin, Estimator):
    """Turn pictures into features of a pretrained network.

    The network is frozen: each picture's features depend on that picture alone. They
    are computed once per picture and kept (`cache`), so that further folds, candidates
    of a grid search and calls of `transform` cost next to nothing.

    Read more in the user guide, page "Features for classic machine learning".

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
        None initializes the network at random.
    layers : int, str or list of these, default=-1
        What to read: a stage by its number (-1 is the last one) or its name, or any
        node of the network's graph by its name. Several are joined side by side.
        Nothing behind the deepest one is computed.
    pooling : {"avg", "max", "gem", "flatten", "cls", "none"}, default="avg"
        What is kept of each layer: the mean, the maximum or the generalised mean (p =
        3) of each channel over all places, all values in a row, the class token (vision
        transformers), or the array as it is (one layer only).
    in_channels : int, default=3
        Number of channels of the network's input: 3 for color, 1 for grayscale, more
        for multispectral images.
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
        What runs the network. ``"auto"`` picks the fastest available one for the number
        of images, including its start-up time.
    precision : {"float32", "bfloat16", "float16"}, default="float32"
        Floating-point precision of the network. Lower precision is faster on hardware
        that supports it and rounds the features.
    batch_size : int or "auto", default="auto"
        Pictures that go through the network at once. It changes the speed and the
        memory used, not the result.
    cache : "auto", path-like or None, default="auto"
        Where features are kept: in the memory of this process (bounded), in a directory
        that processes and runs share, or nowhere.
    device : str or torch.device, default="auto"
        Device that runs the network, such as ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
        ``"auto"`` uses CUDA if available and the CPU otherwise.
    n_jobs : int, default=None
        Number of threads that read and decode images. None uses as many as torch does.
    on_error : {"raise", "nan"}, default="raise"
        What a picture that cannot be read becomes: an error that names it, or a row of
        NaN and a warning. Flat rows of pixels that hold NaN are an error in any case,
        as in all of scikit-learn.
    random_state : int, RandomState instance or None, default=None
        Seed of the random weights. Only used if ``weights=None``.
    verbose : int, default=0
        Verbosity level: 1 prints the progress and the speed of `transform`.

    Attributes
    ----------
    backbone_ : Backbone
        The network, with its stages, weights and preprocessing.
    layers_ : list of str
        The layers that are read.
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
        From `fit`, where the backbone or a layer is unknown, or a layer has no class
        token for ``pooling="cls"``.
    WeightsDownloadError
        From `fit`, where published weights cannot be downloaded; the message says how
        to use a local file.
    WeightsMismatchError
        From `fit`, where a weights file belongs to another network.
    FileNotFoundError
        From `fit`, where there is no such weights file.
    MissingDependencyError
        Where a backbone of timm or an engine is asked for whose extra is not installed.
    EngineError
        From `transform`, where ``engine="onnxruntime"`` cannot run this network.
    ValueError
        From `fit`, where a parameter is out of its range, the device is not there, or
        engine, precision and device exclude each other.

    See Also
    --------
    sktl.preprocessing.PixelRowsToImages : Rows of pixels as pictures.
    sktl.backbones.describe_backbone : The stages of a network as a table.

    Notes
    -----
    Features of one picture are the same in every batch, from every engine and from the
    cache, up to float32 rounding (relative differences around 1e-6).

    A fitted extractor pickles with its weights and needs no file or download where it
    is loaded.

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
    >>> pipe = make_pipeline(PretrainedFeatureExtractor(), StandardScaler(), LogisticRegression(C=0.1))
    >>> bool(pipe.fit(X[:300], y[:300]).score(X[300:500], y[300:500]) > 0.8)
    True
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
        """Load the network and learn what kind of pictures ``X`` holds; no features are computed.

        Parameters
        ----------
        X : array-like of pictures
            Paths, pictures, a batch array or rows of pixels, see the user guide.
        y : None
            Ignored.

        Returns
        -------
        self : PretrainedFeatureExtractor
            The fitted extractor.
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
        X : array-like of pictures
            Paths, pictures, a batch array or rows of pixels, see the user guide.
        y : None
            Ignored.

        Returns
        -------
        features : ndarray of shape (n_pictures, n_features), float32
            One row per picture.
        """
        context = start_task(self, max_subtasks=CallbackProgress.N_STEPS)
        context.call_on_fit_task_begin(estimator=self, X=X, y=y)
        images = self._fit(X)
        features = joined_features(self, images, CallbackProgress(self, context, X, y))
        context.call_on_fit_task_end(estimator=self, X=X, y=y)
        return features

    def transform(self, X):
        """Features of the pictures.

        Parameters
        ----------
        X : array-like of pictures
            Pictures of the kind that `fit` has seen.

        Returns
        -------
        features : ndarray of shape (n_pictures, n_features), float32
            One row per picture; with ``pooling="none"`` the layer's activations,
            (n_pictures, channels, height, width).
        """
        check_is_fitted(self, "layers_")
        return joined_features(self, check_images(self, X, reset=False))

    def get_feature_names_out(self, input_features=None):
        """Names of the features: backbone, layer and number, such as ``resnet18_layer4_17``.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Ignored; here for scikit-learn's API.

        Returns
        -------
        names : ndarray of shape (n_features,), dtype object
            One name per column of what `transform` returns.
        """
        check_is_fitted(self, "layers_")
        if self.pooling == "none":
            raise InputError("pooling='none' gives no columns to name. Use pooling='flatten' for a table.")
        prefix = self.backbone_.name.replace(":", "_")
        shapes = PrefixSpec(self.backbone_, self.layers_, self.pooling).shapes
        return np.array(
            [
                f"{prefix}_{layer}_{index}"
                for layer, (width,) in zip(self.layers_, shapes, strict=True)
                for index in range(width)
            ],
            dtype=object,
        )

    def _fit(self, X):
        """Check the pictures, load the network, find its layers."""
        images = check_images(self, X, reset=True)
        self.backbone_ = resolve_backbone(self)
        self.layers_ = name_layers(self.backbone_, self.layers, self.pooling)
        if self.pooling == "none" and len(self.layers_) > 1:
            raise InputError(
                f"pooling='none' with layers={self.layers!r} gives arrays of different shapes, which cannot be joined. "
                "Use one layer, or pooling='flatten'."
            )
        extractor_prefix(self)  # a device that is not there, say, is an error now
        return images

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = []
        return tags
