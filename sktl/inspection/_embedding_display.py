"""A map of pictures: those that have like features lie near each other."""

from numbers import Integral, Real

import numpy as np
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_array, check_random_state
from sklearn.utils.multiclass import type_of_target

from sktl._images import is_missing
from sktl._messages import shortened_errors
from sktl._params import check_consistent_length
from sktl._threads import bounded_threads
from sktl.exceptions import InputError
from sktl.inspection._axes import MUTED, check_matplotlib, one_axes
from sktl.inspection._colors import distinct_colors
from sktl.inspection._decoded_images import DecodedImages, read_images
from sktl.inspection._network_and_images import as_labels, network_and_images, read_layers
from sktl.inspection._text_layout import in_legend
from sktl.inspection._thumbnails import place_thumbnails

_METHODS = ("pca", "tsne")
_TASKS = ("auto", "classification", "regression")
_MARKERS = "o^sDvP*X<>"  # another one after every ten classes: of many, colors alone are told apart with effort
_SAME_MARKER = 10
_IN_LEGEND = 30  # classes of which the names can be read


class EmbeddingDisplay:
    """A map of pictures in two dimensions, made from the features that a network gives of them.

    It is recommended to use `from_estimator` or `from_features` to create one. All parameters are stored as attributes.

    Parameters
    ----------
    embedding : ndarray of shape (n_images, 2)
        Where the pictures lie.
    y : array-like of shape (n_images,), default=None
        Their labels or targets, which give the colours; None, NaN and ``pandas.NA`` mean that one has none.
    photos : sequence of ndarray of shape (height, width, channels), dtype uint8, default=()
        The pictures, one for each point; None for one that cannot be read. Without any there are points alone.
    positions : ndarray of shape (n_images,), default=None
        Where in ``X`` the pictures are.
    task : {"auto", "classification", "regression"}, default="auto"
        Whether ``y`` are labels, with a legend, or numbers, with a colour bar; "auto" takes numbers that are not whole
        for the latter.
    axis_names : tuple of (str, str), default=None
        What the two dimensions are.
    name : str, default=None
        What the features are of.

    Attributes
    ----------
    ax_ : matplotlib Axes
        With the map.
    figure_ : matplotlib Figure
        With the axes.
    points_ : list of matplotlib PathCollection
        The points: those without a label first, then one collection for each class, in the order of the sorted labels,
        or one of all numbers.
    legend_ : matplotlib Legend or None
        Of the classes; of more than 30 those with the most pictures.
    colorbar_ : matplotlib Colorbar or None
        Of the numbers.
    thumbnails_ : list of matplotlib AnnotationBbox
        The pictures that are shown.
    thumbnail_positions_ : list of int
        Which of the points they belong to.

    See Also
    --------
    LayerProbeDisplay : How well a linear model tells the classes apart, from the features of each stage.

    Notes
    -----
    The built-in methods scale each feature to unit variance, as a linear probe does: channels differ in scale by a
    factor of a hundred, and without it a few of them make the map. On photos and sketches, and with three networks,
    neighbours on the maps share their label as often as without scaling, or more often. An estimator of your own gets
    the features as they are: put it behind a `StandardScaler` in a pipeline.

    PCA is fast, and says along its axes how much of the variance it shows, mostly little: classes that lie on one
    another may be well apart in further dimensions. t-SNE shows who is near whom; neither the sizes of its heaps nor
    the distances between them mean anything [4]_. Neither of them looks at ``y``.

    Of a fine-tuned estimator, pictures that it learnt from lie better apart than new ones. Give others.

    References
    ----------
    .. [1] Hotelling, "Analysis of a complex of statistical variables into principal components", Journal of
       Educational Psychology 24, 1933.
    .. [2] Van der Maaten and Hinton, "Visualizing Data using t-SNE", JMLR 9, 2008.
    .. [3] Donahue et al., "DeCAF: A Deep Convolutional Activation Feature for Generic Visual Recognition", ICML 2014,
       section 3.1: such maps of a network's features.
    .. [4] Wattenberg, Viégas and Johnson, "How to Use t-SNE Effectively", Distill, 2016.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktl.inspection import EmbeddingDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> display = EmbeddingDisplay.from_estimator("sktl_mini", X[:200] / 16, y[:200])
    >>> display.embedding.shape, len(display.points_), len(display.thumbnails_) > 10
    ((200, 2), 10, True)
    """

    def __init__(self, embedding, y=None, *, photos=(), positions=None, task="auto", axis_names=None, name=None):
        self.embedding = embedding
        self.y = y
        self.photos = photos
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
        """Draw the map of pictures as a network sees them.

        Parameters
        ----------
        estimator : str, Module, Backbone or sktl estimator
            Whose network is asked. The name of a backbone means its best published weights. A fitted estimator, or a
            pipeline or search with one in it, gives the network with what it learnt, and reads pictures as it learnt
            to; one that is not fitted, such as ``PretrainedFeatureExtractor("resnet18", weights=...)``, the network
            that it would start from.
        X : array-like of images
            Paths, images, a batch array or rows of pixels, see the user guide; of a fitted pipeline, what its first
            step takes.
        y : array-like of shape (n_images,), default=None
            Labels or targets, which give the colours and nothing else.
        layer : int, str, or list of int and str, default=None
            Whose features to take: a stage by its number or name, or any layer by its name. None takes what an
            extractor reads, and of other estimators the last stage.
        method : {"pca", "tsne"} or estimator, default="pca"
            What makes two dimensions of the features: a method, or an estimator with ``fit_transform``, which is
            cloned, such as `sklearn.manifold.Isomap`. Of more than two dimensions the first two are drawn.
        task : {"auto", "classification", "regression"}, default="auto"
            Whether ``y`` are labels or numbers; "auto" asks the estimator, and then ``y`` itself.
        max_samples : int, default=1000
            How many pictures are on the map at most, drawn at random; None takes all.
        random_state : int, RandomState instance or None, default=0
            Which pictures are drawn, and the seed of the method.
        max_thumbnails : int, default=40
            How many pictures are shown at most, where there is room.
        thumbnail_size : float, default=32
            Of their longer sides, in points of 1/72 inch.
        cmap : str or matplotlib Colormap, default="viridis"
            Colours of numbers.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        scatter_kw : dict, default=None
            Keywords for matplotlib's ``scatter`` of the points.

        Returns
        -------
        display : EmbeddingDisplay
            With the data, and with what was drawn.

        Raises
        ------
        ValueError
            Where a parameter is out of its range, ``X`` and ``y`` differ in length, or there is nothing to make a map
            of: fewer than three pictures, or features that are the same for all.
        BackboneError
            Where there is no such network, or no such layer.
        ImageError
            Where a picture cannot be read. With an extractor that has ``on_error="nan"`` it is left out.
        MissingDependencyError
            Where matplotlib is not installed.
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
        embedding, axis_names = _embed(features[is_read], method, seed)
        name = f"{', '.join(layers)} of {found.backbone.name}"
        display = cls(
            embedding, y, photos=DecodedImages(images), positions=rows, task=task, axis_names=axis_names, name=name
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
        """Draw the map of features that are at hand, from whatever they came.

        Parameters
        ----------
        features : array-like of shape (n_images, n_features)
            The features.
        y : array-like of shape (n_images,), default=None
            Labels or targets, which give the colours and nothing else.
        images : array-like of images, default=None
            The pictures, of any kind: paths, pictures, a batch array or rows of pixels. Without them there are points
            alone.
        method : {"pca", "tsne"} or estimator, default="pca"
            What makes two dimensions of the features, see `from_estimator`.
        task : {"auto", "classification", "regression"}, default="auto"
            Whether ``y`` are labels or numbers; "auto" takes numbers that are not whole for the latter.
        max_samples : int, default=1000
            How many pictures are on the map at most, drawn at random; None takes all.
        random_state : int, RandomState instance or None, default=0
            Which pictures are drawn, and the seed of the method.
        image_shape : tuple of (height, width) or (height, width, channels), default=None
            Shape of the pictures where ``images`` holds flat rows of pixels; None understands a square and 3 times a
            square.
        channels : {"auto", "first", "last"}, default="auto"
            Where the channel axis of arrays is, if it cannot be seen.
        in_channels : int, default=3
            Channels of the pictures: 3 for colour, 1 for grey, more for other sensors.
        max_thumbnails : int, default=40
            How many pictures are shown at most, where there is room.
        thumbnail_size : float, default=32
            Of their longer sides, in points of 1/72 inch.
        cmap : str or matplotlib Colormap, default="viridis"
            Colours of numbers.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        scatter_kw : dict, default=None
            Keywords for matplotlib's ``scatter`` of the points.

        Returns
        -------
        display : EmbeddingDisplay
            With the data, and with what was drawn.

        Raises
        ------
        ValueError
            Where a parameter is out of its range, lengths differ, or there is nothing to make a map of: NaN, fewer
            than three rows, or features that are the same in all of them.
        ImageError
            Where ``images`` is no table of pictures.
        MissingDependencyError
            Where matplotlib is not installed.
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
        embedding, axis_names = _embed(features[rows], method, seed)
        display = cls(
            embedding,
            None if y is None else as_labels(y)[rows],
            photos=() if images is None else DecodedImages(images.take(rows)),
            positions=rows,
            task=task,
            axis_names=axis_names,
        )
        look = {"max_thumbnails": max_thumbnails, "thumbnail_size": thumbnail_size, "cmap": cmap}
        return display.plot(ax, **look, scatter_kw=scatter_kw)

    def plot(self, ax=None, *, max_thumbnails=40, thumbnail_size=32, cmap="viridis", scatter_kw=None):
        """Draw the map.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure. The legend lies on its right, for which a figure with
            ``layout="constrained"`` leaves room.
        max_thumbnails : int, default=40
            How many pictures are shown at most, where there is room.
        thumbnail_size : float, default=32
            Of their longer sides, in points of 1/72 inch.
        cmap : str or matplotlib Colormap, default="viridis"
            Colours of numbers.
        scatter_kw : dict, default=None
            Keywords for matplotlib's ``scatter`` of the points.

        Returns
        -------
        display : EmbeddingDisplay
            This object.

        Raises
        ------
        InputError
            Where ``max_thumbnails`` or ``thumbnail_size`` is out of its range.
        """
        _check_thumbnails(max_thumbnails, thumbnail_size)
        self.figure_, self.ax_ = one_axes(self, ax, (7.8, 6.5))
        self.points_, self.legend_, self.colorbar_ = [], None, None
        colors = self._draw_points({"s": 20, "alpha": 0.8, "linewidths": 0, **(scatter_kw or {})}, cmap)
        first, second = self.axis_names or ("", "")
        self.ax_.set(xlabel=first, ylabel=second, xticks=[], yticks=[])
        self.ax_.set_title(self._title(), fontsize="medium")
        self.ax_.set_aspect("equal", adjustable="datalim")  # what looks near is near
        most = min(max_thumbnails, len(self.photos))
        self._set_limits(thumbnail_size / 2 + 3 if most else 0)
        self.thumbnail_positions_, self.thumbnails_ = place_thumbnails(
            self.ax_, np.asarray(self.embedding), self.photos, size=thumbnail_size, most=most, colors=colors
        )
        return self

    def _title(self):
        n = f"{len(self.embedding):,} images"
        return f"{n}\n{self.name}" if self.name else n

    def _draw_points(self, style, cmap):
        """Draw all points; the colour of each, for its thumbnail."""
        y = np.full(len(self.embedding), None) if self.y is None else as_labels(self.y)
        is_known = _is_known(y)
        if not is_known.all():
            label = "no label" if is_known.any() else None
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
            for position in mine:  # an array would take a tuple apart
                colors[position] = color
            marker = _MARKERS[number // _SAME_MARKER % len(_MARKERS)]
            look = {"color": color, "marker": marker, "label": in_legend(label), **style}
            collections.append(self._scatter(mine, look))
        named, title = collections, None
        if len(classes) > _IN_LEGEND:
            most = np.sort(np.argsort(-counts, kind="stable")[: _IN_LEGEND - 1])
            named, title = [collections[number] for number in most], f"{len(most)} of {len(classes)} classes"
        self.legend_ = self.ax_.legend(
            handles=[*self.points_, *named],  # those without a label first
            title=title,
            loc="upper left",
            bbox_to_anchor=(1.01, 1),
            borderaxespad=0,
            fontsize="small",
            markerscale=1.6,  # colors of small points are hard to tell apart
        )
        for handle in self.legend_.legend_handles:
            handle.set_alpha(1)
        self.points_ += collections

    def _scatter(self, which, look):
        return self.ax_.scatter(*np.asarray(self.embedding)[which].T, **look)

    def _set_limits(self, room):
        """Limits so wide that each point has so much room, in points of 1/72 inch: a picture at the margin is inside.

        Matplotlib's own margins would not do: for an equal scale it takes from them what the other axis needs.
        """
        figure = self.figure_.canvas.figure
        figure.draw_without_rendering()  # the layout decides how large the axes are
        lengths = self.ax_.bbox.size * 72 / figure.dpi
        low, high = np.min(self.embedding, axis=0), np.max(self.embedding, axis=0)
        scale = ((high - low) / np.maximum(lengths - 2 * np.maximum(room, 0.05 * lengths), 0.1 * lengths)).max() or 1
        low, high = (low + high - scale * lengths) / 2, (low + high + scale * lengths) / 2
        self.ax_.set_xlim(low[0], high[0], auto=None)  # limits that were fixed could not follow another layout
        self.ax_.set_ylim(low[1], high[1], auto=None)


def _check(method, task, max_samples):
    """What can be said before anything is computed."""
    if not hasattr(method, "fit_transform") and method not in _METHODS:
        raise InputError(f"method={method!r} is none of {_METHODS}, nor an estimator with fit_transform.")
    if task not in _TASKS:
        raise InputError(f"task={task!r} has to be one of {_TASKS}.")
    if max_samples is not None and not (isinstance(max_samples, Integral) and int(max_samples) >= 3):
        raise InputError(f"max_samples={max_samples!r} has to be a number of pictures, 3 or more, or None for all.")


def _check_thumbnails(max_thumbnails, thumbnail_size):
    if not isinstance(max_thumbnails, Integral) or int(max_thumbnails) < 0:
        raise InputError(f"max_thumbnails={max_thumbnails!r} has to be a number of pictures, 0 for none.")
    if not isinstance(thumbnail_size, Real) or not 0 < float(thumbnail_size) < np.inf:
        raise InputError(f"thumbnail_size={thumbnail_size!r} has to be a length in points of 1/72 inch, such as 32.")


def _is_known(y):
    """Which rows have a label."""
    return np.array([not is_missing(label) for label in y.tolist()], dtype=bool)


def _draw(n_rows, max_samples, random_state):
    """The rows on the map, in order, and a seed."""
    with shortened_errors():
        random_state = check_random_state(random_state)
    rows = np.arange(n_rows)
    if max_samples is not None and max_samples < n_rows:
        rows = np.sort(random_state.permutation(n_rows)[:max_samples])
    return rows, int(random_state.randint(2**31 - 1))


def _embed(features, method, seed):
    """Two dimensions, ndarray of shape (n, 2), and what they are called."""
    features = np.asarray(features, np.float64)
    if len(features) < 3 or features.shape[1] < 2:
        raise InputError(
            f"{len(features)} pictures with {features.shape[1]} features make no map: give 3 with 2 or more."
        )
    if (features == features[0]).all():
        raise InputError(f"The features of all {len(features)} pictures are the same, and make no map.")
    with bounded_threads():
        if not isinstance(method, str):
            method = clone(method)
            called = type(getattr(method, "steps", [(None, method)])[-1][1]).__name__
            embedding = np.asarray(method.fit_transform(features))
            if embedding.ndim != 2 or embedding.shape[1] < 2:
                raise InputError(f"method={method!r} gave an array of shape {embedding.shape}, not two dimensions.")
            return embedding[:, :2], (f"first dimension of {called}", f"second dimension of {called}")
        n_components = 2 if method == "pca" else min(50, *features.shape)  # what its authors reduce to before t-SNE
        pca = PCA(n_components, random_state=seed)
        reduced = make_pipeline(StandardScaler(), pca).fit_transform(features)
        if method == "pca":
            shares = pca.explained_variance_ratio_
            names = zip(("first", "second"), shares, strict=True)
            return reduced, tuple(f"{name} principal component\n{share:.0%} of the variance" for name, share in names)
        tsne = TSNE(perplexity=min(30, (len(features) - 1) / 3), random_state=seed)
        return tsne.fit_transform(reduced), ("first dimension of t-SNE", "second dimension of t-SNE")
