"""Fine-tuning for classification."""

from numbers import Real

import numpy as np
from sklearn.base import _fit_context
from sklearn.callback import with_callbacks
from sklearn.utils._param_validation import Interval, StrOptions

from sktl._estimators._checked_table import FitInput
from sktl._estimators._network_classifier import NetworkClassifier
from sktl._estimators._network_estimator import NETWORK_CONSTRAINTS
from sktl.exceptions import InputError
from sktl.finetuning._finetuned import FineTunedEstimator


class FineTunedClassifier(FineTunedEstimator, NetworkClassifier):
    """Adapt a pretrained network to your classes: new head, first stages frozen, the rest trained.

    The frozen stages run once per picture and depth, over all epochs, folds and other candidates of a grid search; only
    the rest is trained, on what they gave.

    Read more in the user guide, page "Fine-tuning".

    Parameters
    ----------
    backbone : str, Module, Backbone or fitted sktl estimator, default="sktl_mini"
        The network: a name that `sktl.backbones.list_backbones` gives, a name of timm after ``"timm:"``, or a network
        of your own, which is copied and not changed. A fitted sktl estimator lends its trained network.
    weights : str, path-like or None, default="default"
        ``"default"`` (the best published for that backbone), a published name such as ``"IMAGENET1K_V1"``, the path of
        a local state dict (``.safetensors``, ``.pt``, ``.ckpt`` ...), or None for random weights.
    freeze_depth : int or str, default=-1
        How many stages are frozen, counted from the input: 0 trains all, a negative number counts from the end (-1:
        all but the last stage are frozen), ``"all"`` trains the head alone, a stage's name freezes up to and including
        it, and ``"auto"`` goes by the number of pictures and by how near they are to what the network knows, as
        `sktl.selection.recommend_strategy` does (`partial_fit`: by those of its first call). What is
        frozen runs once per picture and is bit-identical after `fit`.
    head : "linear", tuple of int or Module, default="linear"
        What is put on the network: one linear layer, hidden layers of these widths with ReLU in front of it, or a
        network of your own, which is copied and maps features (n, n_features) to outputs (n, n_classes).
    head_init : {"probe", "random"}, default="probe"
        How the head's last layer starts: fitted to the untouched network's features (logistic regression), or random.
        A head that fits already does not tear the pretrained features apart in its first steps [1]_.
    pooling : {"avg", "max", "gem", "flatten", "cls"}, default="avg"
        What becomes of the last stage's output on its way to the head, as in `PretrainedFeatureExtractor`.
    dropout : float, default=0.0
        Probability with which a feature is left out, in front of each linear layer of the head.
    max_epochs : int, default=10
        How many times each picture is seen.
    lr : float, default=0.0005
        Learning rate of the head.
    lr_decay : float, default=0.5
        Factor of the learning rate from each stage to the one before: the last stage learns with ``lr * lr_decay``,
        the one before with ``lr * lr_decay ** 2``, and so on. 1.0 is the same rate for all.
    lr_schedule : {"cosine", "linear", "constant"}, default="cosine"
        What becomes of all learning rates during `fit`. `partial_fit` holds them constant.
    optimizer : {"adamw", "adam", "sgd"} or type, default="adamw"
        ``"sgd"`` has a Nesterov momentum of 0.9. A class of `torch.optim` that
        takes groups of parameters works too.
    weight_decay : float, default=0.01
        Of weights; norms and biases have none.
    batch_size : int, default=64
        Pictures in each step. A last batch of one picture joins the one before.
    label_smoothing : float, default=0.0
        Share of a target that is spread over all classes.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, by label; ``"balanced"`` weighs each class as much as every other. They multiply
        ``sample_weight``.
    freeze_bn : bool, default=True
        Whether batch norms that are not frozen keep the statistics of their pretraining all the same. With few
        pictures those are the better ones. Scales and shifts learn in any case, and so do statistics where
        ``weights=None`` loads a network that has not been pretrained.
    unfreeze_every : int, default=None
        Gradual unfreezing [2]_: training starts with the head alone, and after every so many epochs one more stage
        learns, the last one first, until ``freeze_depth`` is reached. None lets all learn from the start.
    augment : {"flip", "crop_flip", "trivial", "randaugment"} or callable, default=None
        Random changes of the pictures that are learnt from, in each epoch others: a recipe, or a callable such as a
        transform of `torchvision.transforms.v2`, which gets the decoded picture. The frozen stages then run in each
        epoch, unless ``n_views`` is given.
    n_views : int, default=None
        How many augmented views of each picture are computed once and kept, to be used in turn. Not used without
        ``augment``.
    early_stopping : bool, default=False
        Whether to set rows aside, or to take ``X_val`` of `fit`, and to stop when the loss on them has not become
        better for ``n_iter_no_change`` epochs. The best weights are put back; the untouched start is judged too.
    validation_fraction : float, default=0.1
        Share of the rows that is set aside. Not used without ``early_stopping``, or where ``X_val`` is given.
    n_iter_no_change : int, default=5
        Epochs without a better loss after which training stops. Not used without ``early_stopping``.
    warm_start : bool, default=False
        Whether `fit` goes on from what the last call learnt, with the parameters as they are now: so a network whose
        head alone was trained can be trained deeper, and slower. The network, its head and its preprocessing are those
        of the first call.
    callbacks : list of skorch callbacks, default=None
        What else is to happen during training. For callbacks of scikit-learn, see `set_callbacks`.
    net_params : dict, default=None
        All that skorch's net takes beside what has a parameter here, such as
        ``{"optimizer__betas": (0.9, 0.99)}``. It overrides the parameters here.
    in_channels : int, default=3
        Channels that the network sees: 3 for colour, 1 for grey, more for other sensors.
    image_shape : tuple of (height, width) or (height, width, channels), default=None
        Shape of the pictures where ``X`` holds flat rows of pixels; None understands a square and 3 times a square.
    channels : {"auto", "first", "last"}, default="auto"
        Where the channel axis of arrays is, if it cannot be seen.
    preprocessing : Preprocessing or dict, default=None
        Size, crop, interpolation, mean and standard deviation; None takes what belongs to the weights.
    engine : {"auto", "torch", "onnxruntime"}, default="auto"
        What runs the frozen stages.
    precision : {"float32", "bfloat16", "float16"}, default="float32"
        Numerics of the frozen stages.
    cache : "auto", path-like or None, default="auto"
        Where the output of the frozen stages is kept beyond this fit: in the memory of this process (bounded), or in a
        directory that processes and runs share. None keeps nothing, not even during a fit: the frozen stages run again
        in every epoch.
    device : str or torch.device, default="auto"
        ``"auto"`` (CUDA where there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    n_jobs : int, default=None
        Threads that read and decode pictures; None takes as many as torch uses.
    on_error : {"raise", "nan"}, default="raise"
        What to do if images cannot be read. "raise" is an error that names them. With "nan", `fit` and `score` leave
        their rows out, with one warning, and `predict_proba` gives rows of NaN for them; `predict`, which has no label
        for them, raises an error that names them. `sktl.datasets.find_unreadable_images` lists them.
    random_state : int, RandomState instance or None, default=None
        Seed of the head, the order of the rows, dropout, augmentation and the validation split. The same number gives
        the same result on the same machine with the same number of threads.
    verbose : int, default=0
        1 prints how far the frozen stages are, and a line for each epoch.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels.
    net_ : skorch.NeuralNet
        The trained rest of the network with its head; it maps the output of the frozen stages to logits.
    history_ : skorch.history.History
        One row per epoch: ``train_loss``, ``lr`` (the head's), ``dur`` (seconds), and where there are rows to judge on
        ``valid_loss`` and ``valid_score`` (of the untouched start in ``history_.start``); with ``unfreeze_every`` also
        ``n_frozen_stages``.
    backbone_ : Backbone
        The network with what was learnt.
    freeze_depth_ : int
        How many stages are frozen.
    n_iter_ : int
        How many epochs were trained.
    best_epoch_ : int
        The epoch whose weights are kept; 0 is the untouched start.
    image_format_ : ImageFormat
        What `fit` learnt about ``X``: kind, image shape, channel axis, value range.
    n_features_in_ : int
        Number of columns seen during `fit`. Defined only where ``X`` is a table of pixels.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of columns seen during `fit`. Defined only where ``X`` has string column names.

    Raises
    ------
    ImageError
        Where ``X`` is no table of pictures, or a picture cannot be read.
    BackboneError
        From `fit`, where the backbone or the stage of ``freeze_depth`` is unknown; the message lists the stages.
    DivergenceError
        From `fit`, where losses or outputs are no finite numbers any more. The estimator keeps the weights of the last
        good epoch.
    KeyboardInterrupt
        From `fit`, where Ctrl-C ended it. The estimator keeps the weights of the last whole epoch; what stands around
        it, a search for one, stops too.
    WeightsDownloadError, WeightsMismatchError, FileNotFoundError
        From `fit`, where weights cannot be downloaded, belong to another network, or are not there.
    ValueError
        From `fit`, where a parameter is out of its range or ``y`` has one class only.

    Warns
    -----
    TrainingWarning
        From `fit`, where ``max_epochs`` ends before ``unfreeze_every`` has let all stages learn.

    See Also
    --------
    FineTunedRegressor : The same for numbers.
    sktl.PretrainedFeatureExtractor : Features of a frozen network for any scikit-learn estimator.

    Notes
    -----
    The frozen part is a pure function of one picture: with ``cache="auto"`` or a directory its output is stored for the
    fit (in a temporary file where it outgrows memory) and kept for the next one. Training on stored output and
    training with ``cache=None`` give the same losses, up to the rounding of float32.

    References
    ----------
    .. [1] Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", ICLR 2022.
    .. [2] Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification", ACL 2018.
    .. [3] Yosinski et al., "How transferable are features in deep neural networks?", NIPS 2014.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktl import FineTunedClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> X = X / 16  # 0-16 to 0-1
    >>> model = FineTunedClassifier(max_epochs=3, random_state=0).fit(X[:300], y[:300])
    >>> bool(model.score(X[300:500], y[300:500]) > 0.8)
    True
    """

    _parameter_constraints: dict = {
        **NETWORK_CONSTRAINTS,
        "label_smoothing": [Interval(Real, 0, 1, closed="left")],
        "class_weight": [dict, StrOptions({"balanced"}), None],
    }

    def __init__(
        self,
        backbone="sktl_mini",
        *,
        weights="default",
        freeze_depth=-1,
        head="linear",
        head_init="probe",
        pooling="avg",
        dropout=0.0,
        max_epochs=10,
        lr=0.0005,
        lr_decay=0.5,
        lr_schedule="cosine",
        optimizer="adamw",
        weight_decay=0.01,
        batch_size=64,
        label_smoothing=0.0,
        class_weight=None,
        freeze_bn=True,
        unfreeze_every=None,
        augment=None,
        n_views=None,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=5,
        warm_start=False,
        callbacks=None,
        net_params=None,
        in_channels=3,
        image_shape=None,
        channels="auto",
        preprocessing=None,
        engine="auto",
        precision="float32",
        cache="auto",
        device="auto",
        n_jobs=None,
        on_error="raise",
        random_state=None,
        verbose=0,
    ):
        self.backbone = backbone
        self.weights = weights
        self.freeze_depth = freeze_depth
        self.head = head
        self.head_init = head_init
        self.pooling = pooling
        self.dropout = dropout
        self.max_epochs = max_epochs
        self.lr = lr
        self.lr_decay = lr_decay
        self.lr_schedule = lr_schedule
        self.optimizer = optimizer
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.label_smoothing = label_smoothing
        self.class_weight = class_weight
        self.freeze_bn = freeze_bn
        self.unfreeze_every = unfreeze_every
        self.augment = augment
        self.n_views = n_views
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.callbacks = callbacks
        self.net_params = net_params
        self.in_channels = in_channels
        self.image_shape = image_shape
        self.channels = channels
        self.preprocessing = preprocessing
        self.engine = engine
        self.precision = precision
        self.cache = cache
        self.device = device
        self.n_jobs = n_jobs
        self.on_error = on_error
        self.random_state = random_state
        self.verbose = verbose

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Train for one epoch on some more pictures, with constant learning rates.

        Nothing is judged: ``early_stopping``, ``max_epochs`` and ``lr_schedule`` play no part. The net is that of the
        first call, or of `fit`; other parameters that were changed since take effect in the next `fit`.

        Parameters
        ----------
        X : array-like of pictures
            Paths, pictures, a batch array or rows of pixels, see the user guide.
        y : array-like of shape (n_pictures,)
            Labels.
        classes : array-like of shape (n_classes,), default=None
            All labels that there will ever be. Needed in the first call, where ``y`` may not have them all.
        sample_weight : array-like of shape (n_pictures,), default=None
            Weights of the rows; a weight of zero is a row that is not there.

        Returns
        -------
        self : FineTunedClassifier
            The fitted estimator.
        """
        is_new = not hasattr(self, "net_")
        if is_new and classes is None:
            raise InputError("classes must be passed on the first call to partial_fit.")
        if not is_new and classes is not None and not np.array_equal(self.classes_, np.unique(classes)):
            raise InputError(
                f"classes={classes!r} is not what it was in the first call: {self.classes_!r}. Give the same classes, "
                "or none."
            )
        if self.class_weight == "balanced":
            raise InputError(
                "class_weight='balanced' is not supported for partial_fit, which does not see all rows. Give a dict."
            )
        return self._fit_step(FitInput(X, y, sample_weight), classes)
