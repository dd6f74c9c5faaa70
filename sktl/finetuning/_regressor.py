"""Fine-tuning of pretrained networks for image regression."""

from sklearn.base import _fit_context
from sklearn.callback import with_callbacks

from sktl._estimators._checked_table import FitInput
from sktl._estimators._network_estimator import NETWORK_CONSTRAINTS
from sktl._estimators._network_regressor import NetworkRegressor
from sktl.finetuning._finetuned import FineTunedEstimator


class FineTunedRegressor(FineTunedEstimator, NetworkRegressor):
    """Fine-tune a pretrained network for image regression.

    A new head with one output per target replaces the classifier of the network. The
    first stages, whose features are general and transfer well [3]_, are frozen; the
    later stages and the head are trained to minimize the squared error of the
    standardized targets. The output of the frozen stages is computed once per image and
    reused across epochs, folds and the candidates of a grid search, so that the freeze
    depth can be tuned like any other hyperparameter.

    Read more in the :doc:`user guide </finetuning>`.

    Parameters
    ----------
    backbone : str, Module, Backbone or fitted sktl estimator, default="sktl_mini"
        The pretrained network: a name listed by `sktl.backbones.list_backbones`, a timm
        model as ``"timm:<name>"``, or your own network, which is copied and left
        unchanged. Pass a fitted sktl estimator to start from its trained network.
    weights : str, path-like or None, default="default"
        Weights of a backbone given by name. ``"default"`` takes the best published
        ones, a string such as ``"IMAGENET1K_V1"`` takes published weights by name, a
        path loads a local state dict (``.safetensors``, ``.pt``, ``.ckpt``, ...), and
        None initializes the network at random. For your own network, ``"default"`` and
        None keep its weights, and a path is loaded into the copy.
    freeze_depth : int or str, default=-1
        Number of stages to freeze, counted from the input. 0 trains all stages, a
        negative number counts from the end (-1 freezes all but the last stage),
        ``"all"`` trains only the head, and the name of a stage freezes up to and
        including it. ``"auto"`` chooses the depth from the number of images and their
        similarity to the pretraining images, as `sktl.selection.recommend_strategy`
        does (with `partial_fit`, from the images of the first call). Frozen stages run
        once per image, in evaluation mode, and are not changed by `fit`.
    max_epochs : int, default=10
        Number of passes over the training images.
    lr : float, default=0.0005
        Learning rate of the head.
    batch_size : int, default=64
        Number of images per training step. A last batch of a single image is merged
        with the one before it, since batch normalization needs at least two.
    augment : {"flip", "crop_flip", "simclr", "trivial", "randaugment"} or callable, default=None
        Random data augmentation, different in each epoch: the name of a recipe, or a
        callable such as a transform from `torchvision.transforms.v2` that is called
        with the decoded image. The views of ``"flip"``, ``"crop_flip"`` and
        ``"simclr"`` are drawn in batches, which is much faster. With augmentation, the
        frozen stages run in each epoch unless ``n_views`` is set.
    early_stopping : bool, default=False
        Whether to stop training when the validation loss has not improved for
        ``n_iter_no_change`` epochs. The validation rows are ``X_val`` passed to `fit`,
        or a fraction of ``X`` that is held out. The weights with the best validation
        loss are restored; the initial weights count as epoch 0.
    validation_fraction : float, default=0.1
        Fraction of the rows to hold out for validation. Only used if
        ``early_stopping=True`` and no ``X_val`` is passed.
    n_iter_no_change : int, default=5
        Number of epochs without improvement after which training stops. Only used if
        ``early_stopping=True``.
    lr_decay : float, default=0.5
        Factor by which the learning rate shrinks from each stage to the one before it:
        the last stage is trained with ``lr * lr_decay``, the one before it with
        ``lr * lr_decay ** 2``, and so on. Use 1.0 for the same rate everywhere.
    lr_schedule : {"cosine", "linear", "constant"}, default="cosine"
        Schedule of all learning rates over the epochs of `fit`. `partial_fit` keeps
        them constant.
    unfreeze_every : int, default=None
        Gradual unfreezing [2]_: training starts with the head alone, and one more
        stage, from the last one on, is unfrozen after every ``unfreeze_every`` epochs
        until ``freeze_depth`` is reached. None trains all unfrozen stages from the
        start.
    optimizer : {"adamw", "adam", "sgd"} or type, default="adamw"
        The optimizer; ``"sgd"`` uses Nesterov momentum of 0.9. Any class from
        `torch.optim` that accepts parameter groups also works.
    weight_decay : float, default=0.01
        Weight decay (L2 regularization) of the optimizer. It is not applied to
        normalization layers and biases.
    head : "linear", tuple of int or Module, default="linear"
        Layers that replace the pretrained classifier: ``"linear"`` for one linear
        layer, a tuple for hidden layers of these widths with ReLU followed by a linear
        layer, or your own network, which is copied and maps features of shape
        (n_samples, n_features) to outputs of shape (n_samples, n_targets).
    head_init : {"probe", "random"}, default="probe"
        How the last layer of the head is initialized. ``"probe"`` fits a ridge
        regression to the features of the network before training, so that the first
        training steps do not distort the pretrained features [1]_; ``"random"`` draws
        random weights.
    pooling : {"avg", "max", "gem", "flatten", "cls"}, default="avg"
        How the output of the last stage is pooled before the head, as in
        `sktl.PretrainedFeatureExtractor`.
    dropout : float, default=0.0
        Dropout probability before each linear layer of the head.
    freeze_bn : bool, default=True
        Whether the batch normalization layers of trained stages keep their pretrained
        running statistics, which are more reliable than those of a small dataset. Their
        scales and shifts are trained either way. Ignored for a network with random
        weights, whose statistics are always updated.
    n_views : int, default=None
        Number of augmented views of each image to compute once and cycle through, so
        that frozen stages do not run in each epoch. Ignored if ``augment`` is None.
    warm_start : bool, default=False
        Whether `fit` continues from the weights of the previous call, with the current
        parameters: for example, to train more stages at a lower rate after training
        only the head. The network, its head and its preprocessing stay those of the
        first call.
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
        warning and returns NaN from `predict`. Use
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
        Seed of the head, the order of the rows, dropout, augmentation and the
        validation split. Pass an int for reproducible results on the same machine with
        the same number of threads.
    verbose : int, default=0
        Verbosity level: 1 prints the progress of the frozen stages and one line per
        epoch.

    Attributes
    ----------
    net_ : skorch.NeuralNet
        The trained stages and head as a skorch net. It maps the output of the frozen
        stages to standardized targets.
    history_ : skorch.history.History
        Training history, one row per epoch: ``train_loss``, ``lr`` (of the head) and
        ``dur`` (seconds); with validation rows also ``valid_loss`` and ``valid_score``,
        whose values before training are in ``history_.start``; with ``unfreeze_every``
        also ``n_frozen_stages``.
    backbone_ : Backbone
        The trained network, with its stages, weights and preprocessing.
    freeze_depth_ : int
        Number of frozen stages.
    n_iter_ : int
        Number of epochs that were trained.
    best_epoch_ : int
        The epoch whose weights were kept; 0 means the initial weights.
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
        From `fit`, if a parameter is invalid or ``y`` is not numeric or contains NaN or
        infinity.

    Warns
    -----
    TrainingWarning
        From `fit`, if ``max_epochs`` is too small for ``unfreeze_every`` to unfreeze
        all stages, or if the mean of the training targets predicts the validation rows
        better than the trained network.

    See Also
    --------
    FineTunedClassifier : Fine-tune a pretrained network for image classification.
    sktl.PretrainedFeatureExtractor : Extract features of a frozen network.

    References
    ----------
    .. [1] Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform
           Out-of-Distribution", ICLR 2022.
    .. [2] Howard and Ruder, "Universal Language Model Fine-tuning for Text
           Classification", ACL 2018.
    .. [3] Yosinski et al., "How transferable are features in deep neural networks?",
           NIPS 2014.

    Examples
    --------
    Predict the mean intensity of a digit:

    >>> from sklearn.datasets import load_digits
    >>> from sktl import FineTunedRegressor
    >>> X = load_digits().data / 16  # 0-16 to 0-1
    >>> y = X.mean(axis=1)
    >>> model = FineTunedRegressor(freeze_depth="all", random_state=0)
    >>> model = model.fit(X[:300], y[:300])
    >>> round(model.score(X[300:500], y[300:500]), 1)
    0.9
    """

    _parameter_constraints: dict = {**NETWORK_CONSTRAINTS}

    def __init__(
        self,
        backbone="sktl_mini",
        *,
        weights="default",
        freeze_depth=-1,
        max_epochs=10,
        lr=0.0005,
        batch_size=64,
        augment=None,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=5,
        lr_decay=0.5,
        lr_schedule="cosine",
        unfreeze_every=None,
        optimizer="adamw",
        weight_decay=0.01,
        head="linear",
        head_init="probe",
        pooling="avg",
        dropout=0.0,
        freeze_bn=True,
        n_views=None,
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
        self.weights = weights
        self.freeze_depth = freeze_depth
        self.max_epochs = max_epochs
        self.lr = lr
        self.batch_size = batch_size
        self.augment = augment
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.lr_decay = lr_decay
        self.lr_schedule = lr_schedule
        self.unfreeze_every = unfreeze_every
        self.optimizer = optimizer
        self.weight_decay = weight_decay
        self.head = head
        self.head_init = head_init
        self.pooling = pooling
        self.dropout = dropout
        self.freeze_bn = freeze_bn
        self.n_views = n_views
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
    def partial_fit(self, X, y, sample_weight=None):
        """Train for one epoch on the given images.

        Call this method several times to train on data that arrives in parts. The
        learning rates are constant, and ``early_stopping``, ``max_epochs`` and
        ``lr_schedule`` are ignored. The network is built in the first call, unless
        `fit` was called before; parameters that are changed afterwards take effect in
        the next `fit`.

        Parameters
        ----------
        X : array-like of images
            Paths, images, a batch array or rows of pixels; see the user guide.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Targets of the images. The mean and scale for standardization are those of
            the first call.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows. A weight of zero leaves a row out.

        Returns
        -------
        self : FineTunedRegressor
            The fitted estimator.
        """
        return self._fit_step(FitInput(X, y, sample_weight))
