"""Detection of anomalous images with features of a pretrained network."""

import contextlib
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.base import OutlierMixin, _fit_context
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from sktl._estimators._backbone_parameter import BACKBONE_CONSTRAINTS, resolve_backbone
from sktl._estimators._fit_tasks import forget_fit
from sktl._estimators._threshold import choose_offset
from sktl._frozen._prefix import FrozenPrefix
from sktl._frozen._progress import CallbackProgress, PrintedProgress, start_task
from sktl._frozen._readable import is_tolerant, readable_rows, unreadable, warn_of_nan
from sktl._frozen._runtime import RUNTIME_CONSTRAINTS, Runtime
from sktl._frozen._spec import PrefixSpec
from sktl._images import FINDER, check_images, digests, listed
from sktl._params import Estimator
from sktl._threads import bounded_threads
from sktl.anomaly._features import feature_blocks
from sktl.anomaly._methods import METHODS, PATCH_METHODS, make_scorer, resolve_layers, scores_patches
from sktl.anomaly._patches import PatchGrid
from sktl.anomaly._scorers import EstimatorScorer
from sktl.exceptions import ImageError, InputError


def _has_maps(detector):
    """Check whether the method, and that of `fit` if it was another, scores patches."""
    is_by_method = scores_patches(detector.method)
    if is_by_method and (not hasattr(detector, "offset_") or detector._grid is not None):
        return True
    got = "a fit with another method" if is_by_method else f"method={detector.method!r}"
    wanted = " or ".join(map(repr, PATCH_METHODS))
    raise AttributeError(f"anomaly_map needs a method that scores patches, {wanted}. Got {got} instead.")


class AnomalyDetector(CallbackSupportMixin, OutlierMixin, Estimator):
    """Detect images that differ from normal ones, using a pretrained network.

    `fit` needs images that are normal, or nearly all of which are, and no labels. The
    network is frozen and nothing is trained: the features of the normal images are kept
    or summarized, and a new image is an anomaly if its features are far from them. Two
    methods compare patches, and their maps show which part of an image is anomalous.

    Read more in the :doc:`user guide </anomalies>`.

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
    method : {"knn", "mahalanobis", "patchcore", "padim"} or estimator, default="knn"
        How an image is compared with the normal ones.

        - ``"knn"``: mean cosine distance of its features to the nearest normal images
          [1]_.
        - ``"mahalanobis"``: distance to the mean of the normal images in units of their
          covariance, which is regularized as in `sklearn.covariance.LedoitWolf` [2]_.
        - ``"patchcore"``: distance of its most unusual patch to the (approximately)
          nearest patch of normal images [3]_. Finds small defects anywhere in an image.
        - ``"padim"``: distance of its most unusual patch to the patches of the normal
          images at the same position [4]_. Finds small defects of aligned objects.

        An estimator with ``fit`` and ``score_samples``, such as
        `sklearn.ensemble.IsolationForest`, is cloned and fitted on the features. Pass a
        pipeline to scale them.
    layers : int, str or list of these, default=None
        Layers whose output to use as features: the number of a stage (-1 is the last
        one), the name of a stage, or the name of any other layer in
        ``Backbone.layers``. None uses the last stage or, for patches, the two stages
        whose maps are nearest to 1/8 and 1/16 of the side of the image, but have at
        least about 16 and 8 positions along a side.
    n_neighbors : int, default=2
        Number of nearest normal images. Only used if ``method="knn"``.
    max_patches : int, default=10000
        Maximum number of patches of normal images to keep, which bounds memory and
        time. If there are more, those that represent all others best are chosen (a core
        set), from ten times this number that are drawn evenly from the images. Only
        used if ``method="patchcore"``.
    n_components : int, default=100
        Number of channels to use, drawn at random. Only used if ``method="padim"``.
    contamination : "auto" or float, default="auto"
        How many images to flag as anomalies. With ``"auto"``, the threshold is such
        that 5 % of new normal images are flagged. A float in the range (0, 0.5] is the
        share of training images to flag, as in scikit-learn.
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
        nothing: each call computes the features again, and `fit` computes those of
        patches twice.
    device : str or torch.device, default="auto"
        Device that runs the network, such as ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
        ``"auto"`` uses CUDA if available and the CPU otherwise.
    n_jobs : int, default=None
        Number of threads that read and decode images. None uses as many as torch does.
    on_error : {"raise", "nan"}, default="raise"
        What to do if an image cannot be read. ``"raise"`` raises an error that lists
        the unreadable images. ``"nan"`` leaves them out of `fit` with one warning and
        returns NaN from `score_samples`; `predict`, which has no label to return,
        raises an error. Use `sktl.datasets.find_unreadable_images` to list them in
        advance.
    random_state : int, RandomState instance or None, default=None
        Seed of the choice of patches and channels, and of the random weights if
        ``weights=None``. Pass an int for reproducible results.
    verbose : int, default=0
        Verbosity level: 1 prints the progress and the speed of the network.

    Attributes
    ----------
    backbone_ : Backbone
        The network, with its stages, weights and preprocessing.
    layers_ : list of str
        Names of the layers whose output is used.
    offset_ : float
        The threshold: images with a lower score are anomalies, and
        ``decision_function(X)`` is ``score_samples(X) - offset_``.
    training_scores_ : ndarray of shape (n_samples,)
        Score of each training image by a model that has not learned from it, from which
        ``offset_`` was determined. NaN for images that could not be read.
    estimator_ : estimator
        The fitted estimator. Only defined if ``method`` is an estimator.
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
        From `fit`, if the backbone or a layer does not exist, or a layer has no map for
        a method that scores patches. The message lists the stages that have one.
    InputError
        From `fit`, if there are too few different images.
    WeightsDownloadError, WeightsMismatchError, FileNotFoundError
        From `fit`, if the weights cannot be downloaded, belong to another network, or
        their file does not exist.
    ValueError
        From `fit`, if a parameter is invalid, the device is not available, or
        ``engine``, ``precision`` and ``device`` cannot be combined.

    See Also
    --------
    sktl.PretrainedFeatureExtractor : Features for other detectors and estimators.
    sklearn.neighbors.LocalOutlierFactor : Detector for tables of numbers.

    Notes
    -----
    The scores of training images are those of a model that has not learned from them,
    since a memory recognizes its own rows: a threshold from their usual scores would
    flag most new images. A training image is recognized by its content and is never its
    own neighbor. ``"knn"``, ``"patchcore"``, ``"mahalanobis"`` and ``"padim"`` leave
    out one image at a time; an estimator is fitted on five parts of the images. In all
    methods, `score_samples` returns these scores for training images that are passed
    again in the same form, so that `fit_predict` equals `fit` and `predict`. Equal
    images count as one normal image, and as often as they occur in a share of images.

    With n different training images and ``contamination="auto"``, at least a share of
    1 / (n + 1) of new normal images is flagged, more than 5 % if n is less than 19.

    References
    ----------
    .. [1] Bergman et al., "Deep Nearest Neighbor Anomaly Detection", 2020.
    .. [2] Ledoit and Wolf, "A Well-Conditioned Estimator for Large-Dimensional
           Covariance Matrices", Journal of Multivariate Analysis, 2004.
    .. [3] Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR
           2022.
    .. [4] Defard et al., "PaDiM: a Patch Distribution Modeling Framework for Anomaly
           Detection and Localization", ICPR 2021.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktl.anomaly import AnomalyDetector
    >>> X, y = load_digits(return_X_y=True)
    >>> X = X / 16  # 0-16 to 0-1
    >>> zeros, others = X[y == 0], X[y != 0]
    >>> detector = AnomalyDetector().fit(zeros[:100])
    >>> print(f"{(detector.predict(others[:200]) == -1).mean():.1f}")
    1.0
    >>> detector = AnomalyDetector(method="padim", random_state=0).fit(zeros[:100])
    >>> detector.anomaly_map(others[:2]).shape
    (2, 64, 64)
    """

    _parameter_constraints: dict = {
        **BACKBONE_CONSTRAINTS,
        **RUNTIME_CONSTRAINTS,
        "method": [StrOptions(set(METHODS)), HasMethods(["fit", "score_samples"])],
        "layers": [str, Integral, list, tuple, None],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "max_patches": [Interval(Integral, 1, None, closed="left")],
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "contamination": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="right")],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        backbone="sktl_mini",
        *,
        weights="default",
        method="knn",
        layers=None,
        n_neighbors=2,
        max_patches=10_000,
        n_components=100,
        contamination="auto",
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
        self.method = method
        self.layers = layers
        self.n_neighbors = n_neighbors
        self.max_patches = max_patches
        self.n_components = n_components
        self.contamination = contamination
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
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None):
        """Learn how normal images look, and choose the threshold.

        Parameters
        ----------
        X : array-like of images
            Paths, images, a batch array or rows of pixels; see the user guide. All or
            nearly all of them should be normal.
        y : None
            Ignored.

        Returns
        -------
        self : AnomalyDetector
            The fitted estimator.
        """
        context = start_task(self, max_subtasks=CallbackProgress.N_STEPS)
        context.call_on_fit_task_begin(estimator=self, X=X, y=y)
        forget_fit(self)
        images = check_images(self, X, reset=True)
        self._load_network()
        scorer = make_scorer(self)
        readable = readable_rows(self, images, np.arange(len(images)))
        distinct, group = self._distinct(images.take(readable), scorer.n_required)
        with bounded_threads():
            self._learn(distinct, scorer, [CallbackProgress(self, context, X, y), *self._printed()])
        scores = self._row_scores[group]
        self.training_scores_ = np.full(len(images), np.nan)
        self.training_scores_[readable] = scores
        self.offset_ = choose_offset(scores, self.contamination)
        context.call_on_fit_task_end(estimator=self, X=X, y=y)
        return self

    def predict(self, X):
        """Predict which images are normal.

        Parameters
        ----------
        X : array-like of images
            Images of the same kind as in `fit`.

        Returns
        -------
        labels : ndarray of shape (n_samples,), dtype int
            1 for normal images, -1 for anomalies.

        Raises
        ------
        ImageError
            If images cannot be read, even with ``on_error="nan"``, because they have no
            label to return. The message lists the images.
        """
        images, scores, failures = self._score(X)
        if failures:
            raise ImageError(
                f"{len(failures)} of {len(images)} images cannot be read, so predict has no label for them: "
                f"{listed(unreadable(images, failures))}. {FINDER} lists all. score_samples returns NaN for them."
            )
        return np.where(scores - self.offset_ < 0, -1, 1)

    def decision_function(self, X):
        """Return the scores of images relative to the threshold.

        Parameters
        ----------
        X : array-like of images
            Images of the same kind as in `fit`.

        Returns
        -------
        decision : ndarray of shape (n_samples,), float64
            ``score_samples(X) - offset_``: negative for anomalies.
        """
        return self.score_samples(X) - self.offset_

    def score_samples(self, X):
        """Return how normal images are.

        Parameters
        ----------
        X : array-like of images
            Images of the same kind as in `fit`. Training images get the scores of a
            model that has not learned from them.

        Returns
        -------
        scores : ndarray of shape (n_samples,), float64
            Negative distances from the normal images, high if an image is normal, or
            the scores of the estimator passed as ``method``. For the methods that score
            patches, minus the maximum of `anomaly_map`. NaN for images that cannot be
            read, if ``on_error="nan"``.
        """
        images, scores, failures = self._score(X)
        if failures:
            warn_of_nan(images, failures)
        return scores

    @available_if(_has_maps)
    def anomaly_map(self, X):
        """Return maps that show which parts of images are anomalous.

        Only available for ``method="patchcore"`` and ``method="padim"``.

        Parameters
        ----------
        X : array-like of images
            Images of the same kind as in `fit`.

        Returns
        -------
        maps : ndarray of shape (n_samples, height, width), float32
            Distance of each pixel from normal images, high if it is anomalous. Pixels
            above ``-offset_`` make an image an anomaly. Height and width are those of
            the images as the network takes them, after resizing and cropping:
            ``backbone_.preprocessing.crop_shape``. NaN for images that cannot be read,
            if ``on_error="nan"``.
        """
        check_is_fitted(self, "offset_")
        images = check_images(self, X, reset=False)
        own = self._own_rows(images)
        failures: dict | None = {} if is_tolerant(self, images.on_error) else None
        maps = np.empty((len(images), *self.backbone_.preprocessing.crop_shape), np.float32)
        with bounded_threads():
            for rows, patches in self._features(images, self._printed(), failures):
                maps[rows] = self._grid.maps(self._scorer.distances(patches, own[rows]))
        if failures:
            maps[list(failures)] = np.nan
            warn_of_nan(images, failures)
        return maps

    def _load_network(self):
        """Load the network and find its layers."""
        self.backbone_ = resolve_backbone(self)
        self.layers_ = resolve_layers(self.backbone_, self.layers, self.method)
        self._grid: Any = PatchGrid(self.backbone_, self.layers_) if scores_patches(self.method) else None
        self._prefix()  # raises an error if, for example, the device is not available

    def _distinct(self, images, n_required):
        """Return one of each group of equal images, and the group of each image.

        The images are sorted by content, so that nothing depends on their order.
        """
        contents, first, group = np.unique(
            np.array(digests(images), dtype=object), return_index=True, return_inverse=True
        )
        if len(contents) < n_required:
            or_else = ", or reduce n_neighbors" if self.method == "knn" else ""
            raise InputError(
                f"AnomalyDetector with method={self.method!r} needs at least {n_required} different images. Got "
                f"{len(contents)} in n_samples={len(images)} instead. Pass more images{or_else}."
            )
        self._rows = {content: row for row, content in enumerate(contents)}
        return images.take(first), group

    def _learn(self, images, scorer, listeners):
        """Learn from different images, and return their scores without themselves."""
        blocks = self._features(images, listeners)
        if self._grid is None:
            blocks = list(blocks)  # small enough for a second pass
        scorer.fit((features for _, features in blocks), len(images))
        if isinstance(scorer, EstimatorScorer):
            self.estimator_ = scorer.fitted
        self._scorer, self._row_scores = scorer, np.empty(len(images))
        for rows, features in self._features(images) if self._grid is not None else blocks:
            self._row_scores[rows] = self._scores(features, np.arange(rows.start, rows.stop))

    def _score(self, X):
        """Return checked images, their scores, and the errors of unreadable images."""
        check_is_fitted(self, "offset_")
        images = check_images(self, X, reset=False)
        own = self._own_rows(images)
        scores, new = self._row_scores[own], np.flatnonzero(own < 0)
        failed: dict | None = {} if is_tolerant(self, images.on_error) else None
        with bounded_threads():
            for rows, features in self._features(images.take(new), self._printed(), failed):
                scores[new[rows]] = self._scores(features, own[new[rows]])
        failures = {int(new[row]): error for row, error in (failed or {}).items()}
        scores[list(failures)] = np.nan
        return images, scores, failures

    def _scores(self, features, own):
        """Return the scores of features; a training image is not compared to itself."""
        distances = self._scorer.distances(features, own)
        if self._grid is not None:
            distances = self._grid.maps(distances).max(axis=(1, 2))
        return -distances.astype(np.float64)

    def _own_rows(self, images):
        """Return the row of each training image in the model, and -1 for new images."""
        own = np.full(len(images), -1)
        for index in range(len(images)):
            with contextlib.suppress(ImageError):  # raised or noted when the image is decoded
                own[index] = self._rows.get(images.digest(index), -1)
        return own

    def _features(self, images, listeners=(), failures=None):
        """Yield slices of the images and their features."""
        return feature_blocks(self._prefix(), self._grid, images, listeners, failures)

    def _prefix(self):
        """Return the network up to the layers, pooled unless patches are scored."""
        spec = PrefixSpec(self.backbone_, self.layers_, "avg" if self._grid is None else "none")
        return FrozenPrefix(spec, Runtime.of(self, batch_size=self.batch_size))

    def _printed(self):
        """Return the listeners that print the progress."""
        return [PrintedProgress(self)] if self.verbose else []

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.three_d_array = True
        return tags
