"""Autoencoder for tables of numbers and for images."""

from numbers import Integral, Real

from sklearn.base import _fit_context
from sklearn.callback import with_callbacks
from sklearn.utils._param_validation import Interval, StrOptions

from sktl._estimators._checked_table import FitInput
from sktl._estimators._network_estimator import NETWORK_CONSTRAINTS
from sktl.autoencoders._methods import AutoencoderMethods
from sktl.autoencoders._network import ACTIVATIONS
from sktl.autoencoders._noise import NOISES

_OTHER_PARAMETERS = ("head", "head_init", "pooling", "dropout", "unfreeze_every", "augment", "n_views")


class Autoencoder(AutoencoderMethods):
    """Learn short codes of rows or images, from which they are reconstructed.

    An autoencoder is a network that maps each row to a few numbers, its code, and the
    code back to the row. Codes need fewer columns than PCA for the same error [3]_.
    Rows that are reconstructed badly are outliers, missing entries are filled in, and
    new rows can be drawn [4]_.

    With ``backbone=None``, ``X`` is a table of numbers, which is centered and divided
    by one common scale. Put a `sklearn.preprocessing.StandardScaler` in front if the
    columns have different units. NaN stands for entries that were not observed: they
    are left out of the loss and of all errors. With a backbone, ``X`` holds images.

    Read more in the :doc:`user guide </autoencoders>`.

    Parameters
    ----------
    n_components : int, default=None
        Number of numbers in a code. None uses half of the number of values in a row, at
        most 32 and at most the number of training rows.
    backbone : str, Module, Backbone or fitted sktl estimator, default=None
        The encoder of images: a name listed by `sktl.backbones.list_backbones`, a timm
        model as ``"timm:<name>"``, or your own network, which is copied and left
        unchanged. Pass a fitted sktl estimator to start from its trained network. None
        if ``X`` is a table of numbers; the parameters that describe images are then
        ignored.
    weights : str, path-like or None, default="default"
        Weights of a backbone given by name. ``"default"`` takes the best published
        ones, a string such as ``"IMAGENET1K_V1"`` takes published weights by name, a
        path loads a local state dict (``.safetensors``, ``.pt``, ``.ckpt``, ...), and
        None initializes the network at random. For your own network, ``"default"`` and
        None keep its weights, and a path is loaded into the copy.
    freeze_depth : int or str, default=0
        Number of stages to freeze, counted from the input. 0 trains all stages and
        reconstructs pixels. Otherwise, the output of the last frozen stage is
        reconstructed: a negative number counts from the end (-1 freezes all but the
        last stage), and the name of a stage freezes up to and including it. ``"all"``
        reconstructs the pooled features of the network, as a table of numbers. Frozen
        stages run once per image, in evaluation mode, and are not changed by `fit`.
    hidden_layer_sizes : tuple of int, default=(256,)
        Widths of the hidden layers of the encoder; the decoder has them in reverse
        order. An empty tuple leaves a linear encoder and decoder. Ignored if stages of
        a backbone are trained: the decoder then has a layer for each of their shapes,
        nearest upsampling followed by a 3 x 3 convolution.
    activation : {"relu", "gelu", "tanh", "logistic"}, default="relu"
        Activation function of the hidden layers, and of the decoder of images.
    init : {"pca", "random"}, default="pca"
        How the weights are initialized. ``"pca"`` starts as the principal component
        analysis of the training rows, of at most 10,000 of them and fewer if they are
        long, from which training departs if that is better [1]_; ``"random"`` draws
        random weights.
    noise : {"gaussian", "masking", "salt_and_pepper"}, default=None
        Noise that is added to the input in training, from which the original is
        reconstructed [2]_. ``"gaussian"`` adds normally distributed numbers,
        ``"salt_and_pepper"`` replaces entries with the minimum or maximum of their
        column, and ``"masking"`` hides entries, as if they were not observed, and
        learns to predict these alone. None adds no noise.
    noise_level : float, default=0.2
        Standard deviation of Gaussian noise in units of the common scale of the data,
        or the fraction of the entries that are replaced.
    sparsity : float, default=0.0
        Factor of the penalty on the mean absolute value of the codes (L1
        regularization), in units of the common scale of the data.
    contamination : "auto" or float, default="auto"
        How many rows to flag as outliers. With ``"auto"``, the threshold is such that
        5 % of new rows are flagged: it is chosen on the validation rows, which are held
        out even if ``early_stopping=False``. A float in the range (0, 0.5] is the share
        of training rows to flag, as in scikit-learn.
    max_epochs : int, default=50
        Number of passes over the training rows.
    lr : float, default=0.001
        Learning rate of the layers that are not part of a backbone.
    batch_size : int, default=64
        Number of rows per training step. A last batch of a single row is merged with
        the one before it, since batch normalization needs at least two.
    early_stopping : bool, default=True
        Whether to stop training when the validation loss has not improved for
        ``n_iter_no_change`` epochs. The validation rows are a fraction of ``X`` that is
        held out. The weights with the best validation loss are restored; the initial
        weights count as epoch 0.
    validation_fraction : float, default=0.1
        Fraction of the rows to hold out for validation. Only used if
        ``early_stopping=True`` or ``contamination="auto"``.
    n_iter_no_change : int, default=10
        Number of epochs without improvement after which training stops. Only used if
        ``early_stopping=True``.
    lr_decay : float, default=0.5
        Factor by which the learning rate shrinks from each stage to the one before it:
        the last stage is trained with ``lr * lr_decay``, the one before it with
        ``lr * lr_decay ** 2``, and so on. Use 1.0 for the same rate everywhere.
    lr_schedule : {"cosine", "linear", "constant"}, default="cosine"
        Schedule of all learning rates over the epochs of `fit`. `partial_fit` keeps
        them constant.
    optimizer : {"adamw", "adam", "sgd"} or type, default="adamw"
        The optimizer; ``"sgd"`` uses Nesterov momentum of 0.9. Any class from
        `torch.optim` that accepts parameter groups also works.
    weight_decay : float, default=0.0
        Weight decay (L2 regularization) of the optimizer. It is not applied to
        normalization layers and biases.
    freeze_bn : bool, default=True
        Whether the batch normalization layers of trained stages keep their pretrained
        running statistics, which are more reliable than those of a small dataset. Their
        scales and shifts are trained either way. Ignored for a network with random
        weights, whose statistics are always updated.
    warm_start : bool, default=False
        Whether `fit` continues from the weights of the previous call, with the current
        parameters of the training. The network and its preprocessing, the mean and the
        scale of the data stay those of the first call.
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
        the unreadable images. ``"nan"`` leaves them out of `fit` and `score` with one
        warning and returns rows of NaN from `transform` and `score_samples`; `predict`,
        which has no label to return, raises an error. Use
        `sktl.datasets.find_unreadable_images` to list them in advance.
    cache : "auto", path-like or None, default="auto"
        Where to keep the output of the frozen stages after `fit`: in the memory of this
        process up to a limit (``"auto"``), or in a directory shared by processes and
        runs. None keeps nothing, even during `fit`: the frozen stages then run again in
        each epoch.
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
        Seed of the initial weights, the order of the rows, the noise, the validation
        split and `sample`. Pass an int for reproducible results on the same machine
        with the same number of threads.
    verbose : int, default=0
        Verbosity level: 1 prints the progress of the frozen stages and one line per
        epoch.

    Attributes
    ----------
    n_components_ : int
        Number of numbers in a code.
    offset_ : float
        The threshold: rows with a lower score are outliers, and
        ``decision_function(X)`` is ``score_samples(X) - offset_``.
    net_ : skorch.NeuralNet
        The trained encoder and decoder as a skorch net. It maps rows, or the output of
        the frozen stages, to reconstructions.
    history_ : skorch.history.History
        Training history, one row per epoch: ``train_loss``, ``lr`` and ``dur``
        (seconds); with validation rows also ``valid_loss`` and ``valid_score``, whose
        values before training are in ``history_.start``. Losses are mean squared errors
        in units of the common scale: 1 is the error of the mean.
    n_iter_ : int
        Number of epochs that were trained.
    best_epoch_ : int
        The epoch whose weights were kept; 0 means the initial weights.
    backbone_ : Backbone
        The trained network, with its stages, weights and preprocessing. Only defined if
        there is a backbone.
    freeze_depth_ : int
        Number of frozen stages.
    image_format_ : ImageFormat
        Format of the images seen during `fit`: kind, image shape, channel axis and
        value range. Only defined if there is a backbone.
    n_features_in_ : int
        Number of columns seen during `fit`. Only defined if ``X`` is a table of numbers
        or pixels.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of columns seen during `fit`. Only defined if the column names of ``X``
        are all strings.

    Raises
    ------
    InputError
        If ``backbone=None`` and ``X`` holds images or a row without observed entries.
        From `fit`, if a column has no observed entry, all rows are equal, the standard
        deviation of ``X`` is too large or too small for float32, or ``init="pca"`` is
        used with more components than rows or values in a row.
    ImageError
        If there is a backbone and ``X`` does not contain images, or an image cannot be
        read.
    BackboneError
        From `fit`, if the backbone or the stage passed as ``freeze_depth`` does not
        exist; the message lists the stages.
    DivergenceError
        From `fit`, if the loss, the weights or the outputs become NaN or infinite. The
        estimator keeps the weights of the last good epoch.
    KeyboardInterrupt
        From `fit`, if it was interrupted with Ctrl-C. The estimator keeps the weights
        of the last complete epoch; a search around it stops as well.
    ValueError
        From `fit`, if a parameter is invalid.

    Warns
    -----
    TrainingWarning
        From `fit`, if ``n_components`` is so large that the input can be copied, and
        there is neither noise nor sparsity.

    See Also
    --------
    ReconstructionClassifier : Classify by the autoencoder that reconstructs best.
    sktl.anomaly.AnomalyDetector : Detect anomalous images without training.
    sklearn.decomposition.PCA : Linear codes.

    Notes
    -----
    The code is the sum of a linear map and of a network of hidden layers, and so is the
    reconstruction. With ``init="pca"``, the linear maps are the principal axes and the
    last layers of the networks are zero, so that before training the estimator equals
    `sklearn.decomposition.PCA` up to float32 rounding. Early stopping evaluates this
    start as well. The axes do not depend on validation rows.

    A missing entry is replaced with the mean of its column plus the damped mean
    deviation of the observed entries of its row, before a row is encoded. The damping
    is estimated from the training rows: if the columns have little in common, it is
    large, and the mean of the column remains.

    For recommendations, let the items be the rows and the users the columns, with NaN
    for what was not rated, and use ``noise="masking"`` with a small ``lr``:
    `reconstruct` predicts all ratings. A table with users as rows overfits sooner.

    References
    ----------
    .. [1] Baldi and Hornik, "Neural networks and principal component analysis: Learning
           from examples without local minima", Neural Networks 2, 1989.
    .. [2] Vincent et al., "Stacked Denoising Autoencoders: Learning Useful
           Representations in a Deep Network with a Local Denoising Criterion", JMLR 11,
           2010.
    .. [3] Hinton and Salakhutdinov, "Reducing the Dimensionality of Data with Neural
           Networks", Science 313, 2006.
    .. [4] Ghosh et al., "From Variational to Deterministic Autoencoders", ICLR 2020.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.decomposition import PCA
    >>> from sktl.autoencoders import Autoencoder
    >>> X, y = load_digits(return_X_y=True)
    >>> X = X / 16  # 0-16 to 0-1
    >>> train, test = X[:1000], X[1000:]
    >>> pca = PCA(8).fit(train)
    >>> error = ((pca.inverse_transform(pca.transform(test)) - test) ** 2).mean()
    >>> print(f"{error:.3f}")
    0.026
    >>> autoencoder = Autoencoder(8, random_state=0).fit(train)
    >>> print(f"{((autoencoder.reconstruct(test) - test) ** 2).mean():.3f}")
    0.018
    """

    _parameter_constraints: dict = {
        **{name: allowed for name, allowed in NETWORK_CONSTRAINTS.items() if name not in _OTHER_PARAMETERS},
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "hidden_layer_sizes": ["array-like"],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "init": [StrOptions({"pca", "random"})],
        "noise": [StrOptions(set(NOISES)), None],
        "noise_level": [Interval(Real, 0, None, closed="neither")],
        "sparsity": [Interval(Real, 0, None, closed="left")],
        "contamination": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="right")],
    }

    def __init__(
        self,
        n_components=None,
        *,
        backbone=None,
        weights="default",
        freeze_depth=0,
        hidden_layer_sizes=(256,),
        activation="relu",
        init="pca",
        noise=None,
        noise_level=0.2,
        sparsity=0.0,
        contamination="auto",
        max_epochs=50,
        lr=0.001,
        batch_size=64,
        early_stopping=True,
        validation_fraction=0.1,
        n_iter_no_change=10,
        lr_decay=0.5,
        lr_schedule="cosine",
        optimizer="adamw",
        weight_decay=0.0,
        freeze_bn=True,
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
        self.n_components = n_components
        self.backbone = backbone
        self.weights = weights
        self.freeze_depth = freeze_depth
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.init = init
        self.noise = noise
        self.noise_level = noise_level
        self.sparsity = sparsity
        self.contamination = contamination
        self.max_epochs = max_epochs
        self.lr = lr
        self.batch_size = batch_size
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.lr_decay = lr_decay
        self.lr_schedule = lr_schedule
        self.optimizer = optimizer
        self.weight_decay = weight_decay
        self.freeze_bn = freeze_bn
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
    def fit(self, X, y=None, sample_weight=None):
        """Learn to reconstruct rows of numbers or images.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or array-like of images
            Rows of numbers, in which NaN stands for entries that were not observed; or,
            with a backbone, images.
        y : None
            Ignored.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows. A weight of zero leaves a row out.

        Returns
        -------
        self : Autoencoder
            The fitted estimator.
        """
        return self._fit(FitInput(X, None, sample_weight))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        has_images = self.backbone is not None
        tags.input_tags.string = tags.input_tags.three_d_array = has_images
        tags.input_tags.allow_nan = not has_images
        tags.transformer_tags.preserves_dtype = [] if has_images else ["float64", "float32"]
        return tags
