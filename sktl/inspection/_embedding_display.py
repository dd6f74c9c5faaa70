"""Two-dimensional embeddings of images."""

from numbers import Integral, Real

import numpy as np
from sklearn.utils import check_array, check_random_state
from sklearn.utils.multiclass import type_of_target

from sktl._images import is_missing
from sktl._messages import shortened_errors
from sktl._moved import RenamedAttributes
from sktl._params import check_consistent_length
from sktl.exceptions import InputError
from sktl.inspection._axes import MUTED, check_matplotlib, one_axes
from sktl.inspection._colors import distinct_colors
from sktl.inspection._decoded_images import DecodedImages, read_images
from sktl.inspection._network_and_images import as_labels, network_and_images, read_layers
from sktl.inspection._text_layout import in_legend
from sktl.inspection._thumbnails import place_thumbnails
from sktl.inspection._two_dimensions import METHODS, embed

_TASKS = ("auto", "classification", "regression")
_MARKERS = "o^sDvP*X<>"  # the marker changes after every ten classes: many colors look alike
_SAME_MARKER = 10
_IN_LEGEND = 30  # maximum number of classes in a readable legend


class EmbeddingDisplay(RenamedAttributes):
    """Visualization of the features of images in two dimensions.

    The features that a network computes for the images are reduced to two dimensions by
    PCA [1]_, t-SNE [2]_ or another method, as in [3]_.

    It is recommended to use `from_estimator` or `from_features` to create a display.
    All parameters are stored as attributes.

    Read more in the :doc:`user guide </displays>`.

    Parameters
    ----------
    embedding : ndarray of shape (n_samples, 2)
        Coordinates of the images.
    y : array-like of shape (n_samples,), default=None
        Labels or targets of the images, shown as colors. None, NaN and ``pandas.NA``
        mark unlabeled images.
    images : sequence of ndarray of shape (height, width, channels), dtype uint8, default=()
        Images to show as thumbnails, one for each point; None for an image that cannot
        be read. If empty, only points are drawn.
    positions : ndarray of shape (n_samples,), default=None
        Positions of the images in ``X``.
    task : {"auto", "classification", "regression"}, default="auto"
        Whether ``y`` contains labels, shown with a legend, or numeric targets, shown
        with a color bar. ``"auto"`` treats non-integer numbers as targets.
    axis_names : tuple of (str, str), default=None
        Labels of the two axes.
    name : str, default=None
        Names of the layers and of the network, shown in the title.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the embedding.
    figure_ : matplotlib Figure
        Figure containing the axes.
    points_ : list of matplotlib PathCollection
        Points of the unlabeled images, if any, followed by one collection per class in
        sorted order, or by one collection for all numeric targets.
    legend_ : matplotlib Legend or None
        Legend of the classes, or of the most frequent ones if there are more than 30.
    colorbar_ : matplotlib Colorbar or None
        Color bar of numeric targets.
    thumbnails_ : list of matplotlib AnnotationBbox
        Images that are shown.
    thumbnail_positions_ : list of int
        Indices of the points that have a thumbnail.

    See Also
    --------
    LayerProbeDisplay : Score of a linear model on the features of each stage.

    Notes
    -----
    The built-in methods standardize the features, as a linear probe does. The scales of
    channels can differ by a factor of 100, so a few channels would otherwise dominate
    the embedding. An estimator passed as ``method`` receives the original
    features; combine it with a `StandardScaler` in a pipeline to standardize them.

    PCA is fast. Its axis labels show the explained variance. This is usually small, so
    classes that overlap in the plot may be well separated in other dimensions. t-SNE
    preserves neighborhoods, but the sizes of clusters and the distances between them
    have no meaning [4]_. Neither method uses ``y``.

    An estimator separates the images on which it was fine-tuned better than new images.
    Pass images that it was not trained on.

    References
    ----------
    .. [1] Hotelling, "Analysis of a complex of statistical variables into principal
           components", Journal of Educational Psychology 24, 1933.
    .. [2] Van der Maaten and Hinton, "Visualizing Data using t-SNE", JMLR 9, 2008.
    .. [3] Donahue et al., "DeCAF: A Deep Convolutional Activation Feature for Generic
           Visual Recognition", ICML 2014, section 3.1.
    .. [4] Wattenberg, Viégas and Johnson, "How to Use t-SNE Effectively", Distill,
           2016.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktl.inspection import EmbeddingDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> display = EmbeddingDisplay.from_estimator("sktl_mini", X[:200] / 16, y[:200])
    >>> display.embedding.shape, len(display.points_), len(display.thumbnails_) > 10
    ((200, 2), 10, True)
    """

    _renamed = {"photos": "images"}

    def __init__(self, embedding, y=None, *, images=(), positions=None, task="auto", axis_names=None, name=None):
        self.embedding = embedding
        self.y = y
        self.images = images
        self.positions = positions
        self.task = task
        self.axis_names = axis_names
        self.name = name

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y=None,
        *,
        layer=None,
        method="pca",
        task="auto",
        max_samples=1000,
        random_state=0,
        max_thumbnails=40,
        thumbnail_size=32,
        cmap="viridis",
        ax=None,
        scatter_kw=None,
    ):
        """Compute the features of images with a network and plot their embedding.

        Parameters
        ----------
        estimator : str, Module, Backbone or sktl estimator
            Network to inspect: the name of a backbone, which is loaded with its default
            weights, your own network, or an sktl estimator. A fitted estimator, or a
            fitted pipeline or search that contains one, provides its trained network
            and reads images as in `fit`. An unfitted estimator, such as
            ``PretrainedFeatureExtractor("resnet18", weights=..., cache=...)``, provides
            its pretrained network and its parameters.
        X : array-like of images
            Paths, images, a batch array or rows of pixels; see the user guide. For a
            fitted pipeline, the input of its first step.
        y : array-like of shape (n_samples,), default=None
            Labels or targets of the images, shown as colors.
        layer : int, str, or list of int and str, default=None
            Layers whose features are used: a stage by its index or name, or any layer
            by its name. None uses the layers of a feature extractor, and the last stage
            of other estimators.
        method : {"pca", "tsne"} or estimator, default="pca"
            Method that reduces the features to two dimensions. An estimator with
            ``fit_transform``, such as `sklearn.manifold.Isomap`, is cloned; the first
            two dimensions of its output are used.
        task : {"auto", "classification", "regression"}, default="auto"
            Whether ``y`` contains labels or numeric targets. ``"auto"`` uses the type
            of the estimator, and otherwise treats non-integer numbers as targets.
        max_samples : int, default=1000
            Maximum number of images, drawn at random. None uses all images.
        random_state : int, RandomState instance or None, default=0
            Seed of the random sample and of the built-in methods. Pass an int for
            reproducible results.
        max_thumbnails : int, default=40
            Maximum number of images to show as thumbnails. Fewer are shown if there is
            not enough room.
        thumbnail_size : float, default=32
            Length of the longer side of a thumbnail, in points of 1/72 inch.
        cmap : str or matplotlib Colormap, default="viridis"
            Colormap of numeric targets.
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.
        scatter_kw : dict, default=None
            Keyword arguments passed to matplotlib's ``scatter`` to draw the points.

        Returns
        -------
        display : EmbeddingDisplay
            Object that stores the computed values and the matplotlib artists.

        Raises
        ------
        ValueError
            If a parameter is out of range, ``X`` and ``y`` differ in length, there are
            fewer than three images, or all images have the same features.
        BackboneError
            If the network or the layer does not exist.
        ImageError
            If an image cannot be read. An extractor with ``on_error="nan"`` leaves it
            out instead.
        MissingDependencyError
            If matplotlib is not installed.
        """
        check_matplotlib(cls)
        _check(method, task, max_samples)
        _check_thumbnails(max_thumbnails, thumbnail_size)
        found = network_and_images(estimator, X)
        if y is not None:
            check_consistent_length(range(len(found.images)), y)
        layers, pooling = read_layers(found, layer)
        rows, seed = _draw(len(found.images), max_samples, random_state)
        found = found._replace(images=found.images.take(rows))
        tables = found.features(layers, pooling, on_error=getattr(found.owner, "on_error", "raise"))
        features = np.concatenate(tables, axis=1)
        is_read = ~np.isnan(features).any(1)
        rows, images = rows[is_read], found.images.take(np.flatnonzero(is_read))
        y = None if y is None else as_labels(y)[rows]
        if y is not None and task == "auto" and _is_known(y).any() and found.is_regression(y[_is_known(y)].tolist()):
            task = "regression"
        embedding, axis_names = embed(features[is_read], method, seed)
        name = f"{', '.join(layers)} of {found.backbone.name}"
        display = cls(
            embedding, y, images=DecodedImages(images), positions=rows, task=task, axis_names=axis_names, name=name
        )
        look = {"max_thumbnails": max_thumbnails, "thumbnail_size": thumbnail_size, "cmap": cmap}
        return display.plot(ax, **look, scatter_kw=scatter_kw)

    @classmethod
    def from_features(
        cls,
        features,
        y=None,
        images=None,
        *,
        method="pca",
        task="auto",
        max_samples=1000,
        random_state=0,
        image_shape=None,
        channels="auto",
        in_channels=3,
        max_thumbnails=40,
        thumbnail_size=32,
        cmap="viridis",
        ax=None,
        scatter_kw=None,
    ):
        """Plot the embedding of given features.

        Parameters
        ----------
        features : array-like of shape (n_samples, n_features)
            Features of the images.
        y : array-like of shape (n_samples,), default=None
            Labels or targets of the images, shown as colors.
        images : array-like of images, default=None
            Images to show as thumbnails: paths, images, a batch array or rows of
            pixels. None draws only points.
        method : {"pca", "tsne"} or estimator, default="pca"
            Method that reduces the features to two dimensions. An estimator with
            ``fit_transform``, such as `sklearn.manifold.Isomap`, is cloned; the first
            two dimensions of its output are used.
        task : {"auto", "classification", "regression"}, default="auto"
            Whether ``y`` contains labels or numeric targets. ``"auto"`` treats
            non-integer numbers as targets.
        max_samples : int, default=1000
            Maximum number of images, drawn at random. None uses all images.
        random_state : int, RandomState instance or None, default=0
            Seed of the random sample and of the built-in methods. Pass an int for
            reproducible results.
        image_shape : tuple of (height, width) or (height, width, channels), default=None
            Shape of each image if the images are flat rows of pixels. If None, the
            images are assumed to be square, with one or three channels.
        channels : {"auto", "first", "last"}, default="auto"
            Position of the channel axis in arrays. ``"auto"`` infers it from the shape
            and raises an error if that is ambiguous.
        in_channels : int, default=3
            Number of channels of the images: 3 for color, 1 for grayscale, more for
            multispectral images.
        max_thumbnails : int, default=40
            Maximum number of images to show as thumbnails. Fewer are shown if there is
            not enough room.
        thumbnail_size : float, default=32
            Length of the longer side of a thumbnail, in points of 1/72 inch.
        cmap : str or matplotlib Colormap, default="viridis"
            Colormap of numeric targets.
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.
        scatter_kw : dict, default=None
            Keyword arguments passed to matplotlib's ``scatter`` to draw the points.

        Returns
        -------
        display : EmbeddingDisplay
            Object that stores the computed values and the matplotlib artists.

        Raises
        ------
        ValueError
            If a parameter is out of range, lengths differ, there are fewer than three
            rows, ``features`` contains NaN, or all rows are the same.
        ImageError
            If ``images`` does not contain images.
        MissingDependencyError
            If matplotlib is not installed.
        """
        check_matplotlib(cls)
        _check(method, task, max_samples)
        _check_thumbnails(max_thumbnails, thumbnail_size)
        with shortened_errors():
            features = check_array(features, input_name="features")
        if images is not None:
            images = read_images(images, image_shape=image_shape, channels=channels, in_channels=in_channels)
        check_consistent_length(features, y, None if images is None else range(len(images)))
        rows, seed = _draw(len(features), max_samples, random_state)
        embedding, axis_names = embed(features[rows], method, seed)
        display = cls(
            embedding,
            None if y is None else as_labels(y)[rows],
            images=() if images is None else DecodedImages(images.take(rows)),
            positions=rows,
            task=task,
            axis_names=axis_names,
        )
        look = {"max_thumbnails": max_thumbnails, "thumbnail_size": thumbnail_size, "cmap": cmap}
        return display.plot(ax, **look, scatter_kw=scatter_kw)

    def plot(self, ax=None, *, max_thumbnails=40, thumbnail_size=32, cmap="viridis", scatter_kw=None):
        """Plot the embedding.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created. The legend is drawn to
            the right of the Axes; a figure with ``layout="constrained"`` makes room for
            it.
        max_thumbnails : int, default=40
            Maximum number of images to show as thumbnails. Fewer are shown if there is
            not enough room.
        thumbnail_size : float, default=32
            Length of the longer side of a thumbnail, in points of 1/72 inch.
        cmap : str or matplotlib Colormap, default="viridis"
            Colormap of numeric targets.
        scatter_kw : dict, default=None
            Keyword arguments passed to matplotlib's ``scatter`` to draw the points.

        Returns
        -------
        display : EmbeddingDisplay
            Object that stores the computed values and the matplotlib artists.

        Raises
        ------
        InputError
            If ``max_thumbnails`` or ``thumbnail_size`` is out of range.
        """
        _check_thumbnails(max_thumbnails, thumbnail_size)
        self.figure_, self.ax_ = one_axes(self, ax, (7.8, 6.5))
        self.points_, self.legend_, self.colorbar_ = [], None, None
        colors = self._draw_points({"s": 20, "alpha": 0.8, "linewidths": 0, **(scatter_kw or {})}, cmap)
        first, second = self.axis_names or ("", "")
        self.ax_.set(xlabel=first, ylabel=second, xticks=[], yticks=[])
        self.ax_.set_title(self._title(), fontsize="medium")
        self.ax_.set_aspect("equal", adjustable="datalim")  # the same scale on both axes
        most = min(max_thumbnails, len(self.images))
        self._set_limits(thumbnail_size / 2 + 3 if most else 0)
        self.thumbnail_positions_, self.thumbnails_ = place_thumbnails(
            self.ax_, np.asarray(self.embedding), self.images, size=thumbnail_size, most=most, colors=colors
        )
        return self

    def _title(self):
        n = f"{len(self.embedding):,} images"
        return f"{n}\n{self.name}" if self.name else n

    def _draw_points(self, style, cmap):
        """Draw all points and return the color of each, for its thumbnail."""
        y = np.full(len(self.embedding), None) if self.y is None else as_labels(self.y)
        is_known = _is_known(y)
        if not is_known.all():
            label = "unlabeled" if is_known.any() else None
            self.points_.append(self._scatter(~is_known, {"color": MUTED, "label": label, **style}))
        colors = np.full(len(y), MUTED, dtype=object)
        if is_known.any():
            known = y[is_known]
            is_regression = self.task == "regression"
            if self.task == "auto":
                is_regression = type_of_target(known.tolist()).startswith("continuous")
            draw = self._draw_numbers if is_regression else self._draw_classes
            draw(known, is_known, colors, style, cmap)
        return colors

    def _draw_numbers(self, known, is_known, colors, style, cmap):
        points = self._scatter(is_known, {"c": known.astype(float), "cmap": cmap, **style})
        self.points_.append(points)
        self.colorbar_ = self.figure_.colorbar(points, ax=self.ax_, label="target")
        self.colorbar_.solids.set_alpha(1)
        for place, color in zip(np.flatnonzero(is_known), points.to_rgba(known.astype(float)), strict=True):
            colors[place] = tuple(color)

    def _draw_classes(self, known, is_known, colors, style, cmap):
        classes, codes, counts = np.unique(known, return_inverse=True, return_counts=True)
        collections = []
        for number, (label, color) in enumerate(zip(classes, distinct_colors(len(classes)), strict=True)):
            mine = np.flatnonzero(is_known)[codes == number]
            for position in mine:  # an assignment to the array would unpack the tuple
                colors[position] = color
            marker = _MARKERS[number // _SAME_MARKER % len(_MARKERS)]
            look = {"color": color, "marker": marker, "label": in_legend(label), **style}
            collections.append(self._scatter(mine, look))
        named, title = collections, None
        if len(classes) > _IN_LEGEND:
            most = np.sort(np.argsort(-counts, kind="stable")[: _IN_LEGEND - 1])
            named, title = [collections[number] for number in most], f"{len(most)} of {len(classes)} classes"
        self.legend_ = self.ax_.legend(
            handles=[*self.points_, *named],  # unlabeled images first
            title=title,
            loc="upper left",
            bbox_to_anchor=(1.01, 1),
            borderaxespad=0,
            fontsize="small",
            markerscale=1.6,  # colors of small markers are hard to distinguish
        )
        for handle in self.legend_.legend_handles:
            handle.set_alpha(1)
        self.points_ += collections

    def _scatter(self, which, look):
        return self.ax_.scatter(*np.asarray(self.embedding)[which].T, **look)

    def _set_limits(self, room):
        """Set limits that leave ``room``, in points of 1/72 inch, around each point.

        Matplotlib's margins do not suffice: an equal aspect changes one of them.
        """
        figure = self.figure_.canvas.figure
        figure.draw_without_rendering()  # the layout determines the size of the axes
        lengths = self.ax_.bbox.size * 72 / figure.dpi
        low, high = np.min(self.embedding, axis=0), np.max(self.embedding, axis=0)
        scale = ((high - low) / np.maximum(lengths - 2 * np.maximum(room, 0.05 * lengths), 0.1 * lengths)).max() or 1
        low, high = (low + high - scale * lengths) / 2, (low + high + scale * lengths) / 2
        self.ax_.set_xlim(low[0], high[0], auto=None)  # fixed limits could not follow another layout
        self.ax_.set_ylim(low[1], high[1], auto=None)


def _check(method, task, max_samples):
    """Validate parameters before anything is computed."""
    if not hasattr(method, "fit_transform") and method not in METHODS:
        raise InputError(
            f"The 'method' parameter must be one of {METHODS} or an estimator with fit_transform. Got {method!r} "
            "instead."
        )
    if task not in _TASKS:
        raise InputError(f"The 'task' parameter must be one of {_TASKS}. Got {task!r} instead.")
    if max_samples is not None and not (isinstance(max_samples, Integral) and int(max_samples) >= 3):
        raise InputError(
            f"The 'max_samples' parameter must be an int of at least 3, or None to use all images. Got {max_samples!r} "
            "instead."
        )


def _check_thumbnails(max_thumbnails, thumbnail_size):
    if not isinstance(max_thumbnails, Integral) or int(max_thumbnails) < 0:
        raise InputError(
            f"The 'max_thumbnails' parameter must be an int of at least 0. Got {max_thumbnails!r} instead."
        )
    if not isinstance(thumbnail_size, Real) or not 0 < float(thumbnail_size) < np.inf:
        raise InputError(
            f"The 'thumbnail_size' parameter must be a positive length in points. Got {thumbnail_size!r} instead."
        )


def _is_known(y):
    """Return a mask of the rows that have a label."""
    return np.array([not is_missing(label) for label in y.tolist()], dtype=bool)


def _draw(n_rows, max_samples, random_state):
    """Return the positions of a random sample, in order, and a seed."""
    with shortened_errors():
        random_state = check_random_state(random_state)
    rows = np.arange(n_rows)
    if max_samples is not None and max_samples < n_rows:
        rows = np.sort(random_state.permutation(n_rows)[:max_samples])
    return rows, int(random_state.randint(2**31 - 1))
