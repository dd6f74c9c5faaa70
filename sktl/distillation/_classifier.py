"""Distillation for classification."""

from numbers import Real

from sklearn.base import _fit_context
from sklearn.callback import with_callbacks
from sklearn.utils._param_validation import Interval, StrOptions

from sktl._estimators._checked_table import FitInput
from sktl._estimators._network_classifier import NetworkClassifier
from sktl.distillation._distillation_objective import ClassifierDistillation
from sktl.distillation._distilled import DISTILLATION_CONSTRAINTS, DistilledEstimator
from sktl.distillation._knowledge import ANSWERS, MAPS, RELATIONS
from sktl.distillation._partial_targets import PartlyLabeledClasses


class DistilledClassifier(DistilledEstimator, NetworkClassifier):
    """Train a small network to reproduce the predictions of a classifier.

    The teacher can be any scikit-learn classifier: a fine-tuned network, a pipeline of
    features and a support vector machine, or a random forest. It predicts each image
    once for all epochs, folds and candidates of a grid search. The student learns from
    these predictions, from the layers of the teacher if it contains an sktl network,
    and from the labels. The loss is
    ``alpha * teacher_loss + (1 - alpha) * cross_entropy``, and ``teacher_loss`` is the
    weighted sum over the kinds of ``knowledge``.

    Read more in the :doc:`user guide </distillation>`.

    Parameters
    ----------
    teacher : estimator
        The classifier to learn from. It is cloned and fitted, unless it is a fitted
        estimator inside a `sklearn.frozen.FrozenEstimator`, which is used as it is and
        not changed. It receives ``X`` as passed to `fit` and applies its own
        preprocessing.
    student : str, Module, Backbone or fitted sktl estimator, default="sktl_mini"
        The network to train: a name listed by `sktl.backbones.list_backbones`, a timm
        model as ``"timm:<name>"``, or your own network, which is copied and left
        unchanged. Pass a fitted sktl estimator to start from its trained network.
    weights : str, path-like or None, default="default"
        Weights of a backbone given by name. ``"default"`` takes the best published
        ones, a string such as ``"IMAGENET1K_V1"`` takes published weights by name, a
        path loads a local state dict (``.safetensors``, ``.pt``, ``.ckpt``, ...), and
        None initializes the network at random. For your own network, ``"default"`` and
        None keep its weights, and a path is loaded into the copy.
    knowledge : str or dict of str to float, default="response"
        Kind of knowledge to transfer from the teacher, or a dict from kind to weight to
        combine several. ``"response"`` compares softened predictions [1]_.
        ``"decoupled"`` compares them separately for the target class and the other
        classes [2]_. ``"feature"`` compares activations of pairs of layers after a
        learned linear map [3]_. ``"attention"`` compares how strongly pairs of layers
        are activated at each position of the image [4]_. ``"relation"`` compares the
        distances and angles between the images of a batch in the feature space before
        the head [5]_, and ``"similarity"`` their inner products [6]_. All kinds but
        ``"response"`` and ``"decoupled"`` require a teacher that contains an sktl
        network.
    temperature : float, default=4.0
        Temperature by which the logits of teacher and student are divided before they
        are compared. Higher values soften the predictions and give more weight to
        unlikely classes.
    alpha : float, default=0.9
        Weight of the teacher in the loss, between 0 and 1; the labels have the weight
        ``1 - alpha``. 0 learns from the labels alone, and 1 ignores the labels.
    freeze_depth : int or str, default=-1
        Number of stages to freeze, counted from the input. 0 trains all stages, a
        negative number counts from the end (-1 freezes all but the last stage),
        ``"all"`` trains only the head, and the name of a stage freezes up to and
        including it. Frozen stages run once per image, in evaluation mode, and are not
        changed by `fit`.
    max_epochs : int, default=10
        Number of passes over the training images.
    lr : float, default=0.0005
        Learning rate of the head.
    batch_size : int, default=64
        Number of images per training step. A last batch of a single image is merged
        with the one before it, since batch normalization needs at least two.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes as a dict from label to weight. ``"balanced"`` weights
        each class inversely to its frequency. Class weights are multiplied with
        ``sample_weight``.
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
    beta : float, default=8.0
        Weight of the other classes relative to the target class in ``"decoupled"``.
        Ignored for other kinds of ``knowledge``.
    layers : "auto" or list of (str, str), default="auto"
        Pairs of layers to compare for ``"feature"`` and ``"attention"``: the name of a
        stage or layer of the teacher and that of a stage or layer of the student.
        ``"auto"`` pairs the last stages of each resolution, from the smallest
        resolution up, for as many resolutions as both networks have; frozen stages of
        the student do not count. The activations of the teacher are averaged to the
        resolution of the student. Ignored for other kinds of ``knowledge``.
    unlabeled : object, default=None
        Label that marks unlabeled images, such as -1. The student learns these from the
        teacher alone. NaN stands for all missing values, including None and pandas.NA.
        If None, all images are labeled.
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
        Schedule of all learning rates over the epochs of `fit`.
    unfreeze_every : int, default=None
        Gradual unfreezing [8]_: training starts with the head alone, and one more
        stage, from the last one on, is unfrozen after every ``unfreeze_every`` epochs
        until ``freeze_depth`` is reached. None trains all unfrozen stages from the
        start.
    optimizer : {"adamw", "adam", "sgd"} or type, default="adamw"
        The optimizer; ``"sgd"`` uses Nesterov momentum of 0.9. Any class from
        `torch.optim` that accepts parameter groups also works.
    weight_decay : float, default=0.01
        Weight decay (L2 regularization) of the optimizer. It is not applied to
        normalization layers and biases.
    label_smoothing : float, default=0.0
        Amount of label smoothing: the fraction of each target that is spread evenly
        over all classes.
    head : "linear", tuple of int or Module, default="linear"
        Layers that replace the pretrained classifier: ``"linear"`` for one linear
        layer, a tuple for hidden layers of these widths with ReLU followed by a linear
        layer, or your own network, which is copied and maps features of shape
        (n_samples, n_features) to outputs of shape (n_samples, n_classes).
    head_init : {"probe", "random"}, default="probe"
        How the last layer of the head is initialized. ``"probe"`` fits a logistic
        regression to the features of the network before training, so that the first
        training steps do not distort the pretrained features [7]_; ``"random"`` draws
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
        warning and returns rows of NaN from `predict_proba`; `predict`, which has no
        label to return, raises an error. Use `sktl.datasets.find_unreadable_images` to
        list them in advance.
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
    classes_ : ndarray of shape (n_classes,)
        The class labels.
    teacher_ : estimator
        The fitted teacher. It is not included when a fitted student is pickled.
    teacher_answers_ : {"logits", "probabilities", "decision values", "labels"}
        Kind of predictions that the student learns from: the most informative kind that
        the teacher provides.
    footprint_ : Footprints
        Cost of the teacher and of the student (parameters, bytes, multiply-accumulates
        and milliseconds per image), and the share of images for which they predict the
        same class. Measured on first access.
    net_ : skorch.NeuralNet
        The trained stages and head as a skorch net. It maps the output of the frozen
        stages to logits.
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
    image_column_ : str or int
        The column of ``X`` that holds the images. The student reads only this column,
        while the teacher receives the whole table. Only defined if ``X`` is a table of
        several columns.
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
        From `fit`, if the student, a stage or a layer does not exist; the message lists
        the stages.
    DivergenceError
        From `fit`, if the loss, the weights or the outputs become NaN or infinite. The
        estimator keeps the weights of the last good epoch.
    KeyboardInterrupt
        From `fit`, if it was interrupted with Ctrl-C. A partly trained student keeps
        the weights of the last complete epoch; a partly trained teacher is not cached.
    NotFittedError
        From `fit`, if the teacher is frozen but not fitted.
    WeightsDownloadError, WeightsMismatchError, FileNotFoundError
        From `fit`, if the weights cannot be downloaded, belong to another network, or
        their file does not exist.
    TypeError
        From `fit`, if the teacher is a class instead of an instance.
    ValueError
        From `fit`, if a parameter is invalid, if ``y`` has only one class, if the
        teacher and ``y`` have different classes, or if ``knowledge`` requires a network
        that the teacher does not contain.

    Warns
    -----
    TrainingWarning
        From `fit`, if the teacher does not support the sample weights.

    See Also
    --------
    DistilledRegressor : Train a small network to reproduce a regressor.
    sktl.FineTunedClassifier : Fine-tune a pretrained network without a teacher.
    sktl.inspection.DistillationDisplay : Plot the score against size and time.

    Notes
    -----
    The student learns from the logits of the teacher (``decision_function``, if it
    agrees with ``predict_proba``). If the teacher has no logits, its probabilities are
    used, then its decision values, then its labels. Probabilities are clipped to at
    least 1e-7, and their logarithms serve as logits. Decision values are not
    calibrated: wrap such a teacher in a `sklearn.calibration.CalibratedClassifierCV` to
    obtain probabilities.

    The teacher always predicts the original images, even if ``augment`` changes those
    that the student is trained on.

    The predictions of a teacher are stored in ``cache``. They are reused only for the
    same image and the same fitted teacher: its type, parameters and fitted attributes,
    and the code of custom classes and functions, but not the code that these call. A
    teacher that is not frozen is fitted only once per process for the same rows and
    parameters if its ``random_state`` is an int.

    References
    ----------
    .. [1] Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network",
           2015.
    .. [2] Zhao et al., "Decoupled Knowledge Distillation", CVPR 2022.
    .. [3] Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015.
    .. [4] Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017.
    .. [5] Park et al., "Relational Knowledge Distillation", CVPR 2019.
    .. [6] Tung and Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019.
    .. [7] Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform
           Out-of-Distribution", ICLR 2022.
    .. [8] Howard and Ruder, "Universal Language Model Fine-tuning for Text
           Classification", ACL 2018.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sktl import DistilledClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> X = X / 16  # 0-16 to 0-1
    >>> teacher = RandomForestClassifier(random_state=0)
    >>> student = DistilledClassifier(teacher, max_epochs=3, random_state=0)
    >>> student = student.fit(X[:500], y[:500])
    >>> round(student.score(X[-200:], y[-200:]), 1)
    0.9
    """

    _kinds = (*ANSWERS, *MAPS, *RELATIONS)
    _objective_type = ClassifierDistillation
    _parameter_constraints: dict = {
        **DISTILLATION_CONSTRAINTS,
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "beta": [Interval(Real, 0, None, closed="left")],
        "label_smoothing": [Interval(Real, 0, 1, closed="left")],
        "class_weight": [dict, StrOptions({"balanced"}), None],
    }

    def __init__(
        self,
        teacher,
        student="sktl_mini",
        *,
        weights="default",
        knowledge="response",
        temperature=4.0,
        alpha=0.9,
        freeze_depth=-1,
        max_epochs=10,
        lr=0.0005,
        batch_size=64,
        class_weight=None,
        augment=None,
        early_stopping=False,
        beta=8.0,
        layers="auto",
        unlabeled=None,
        validation_fraction=0.1,
        n_iter_no_change=5,
        lr_decay=0.5,
        lr_schedule="cosine",
        unfreeze_every=None,
        optimizer="adamw",
        weight_decay=0.01,
        label_smoothing=0.0,
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
        self.teacher = teacher
        self.student = student
        self.weights = weights
        self.knowledge = knowledge
        self.temperature = temperature
        self.alpha = alpha
        self.freeze_depth = freeze_depth
        self.max_epochs = max_epochs
        self.lr = lr
        self.batch_size = batch_size
        self.class_weight = class_weight
        self.augment = augment
        self.early_stopping = early_stopping
        self.beta = beta
        self.layers = layers
        self.unlabeled = unlabeled
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.lr_decay = lr_decay
        self.lr_schedule = lr_schedule
        self.unfreeze_every = unfreeze_every
        self.optimizer = optimizer
        self.weight_decay = weight_decay
        self.label_smoothing = label_smoothing
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
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(
        self,
        X,
        y=None,
        sample_weight=None,
        *,
        classes=None,
        X_val=None,
        y_val=None,
        sample_weight_val=None,
        groups=None,
    ):
        """Fit the teacher unless it is frozen, then train the student.

        Parameters
        ----------
        X : array-like of images
            Paths, images, a batch array or rows of pixels; see the user guide.
        y : array-like of shape (n_samples,), default=None
            Labels of the images. Labels equal to ``unlabeled`` are missing. Not
            required if the teacher is frozen.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows. A weight of zero leaves a row out. They are also passed
            to a teacher that takes ``sample_weight``.
        classes : array-like of shape (n_classes,), default=None
            All class labels, if ``y`` may lack some of them. A class without images is
            learned from the teacher alone. If None, the classes in ``y`` are used, or
            those of the teacher if ``y`` has no labels.
        X_val : array-like of images, default=None
            Images on which to evaluate after each epoch, instead of holding out a
            fraction of ``X``.
        y_val : array-like, default=None
            Labels of ``X_val``.
        sample_weight_val : array-like of shape (n_samples_val,), default=None
            Weights of the rows of ``X_val``.
        groups : array-like of shape (n_samples,), default=None
            Group label of each row of ``X``, such as the subject or the original of
            near-copies. Rows of one group stay on the same side of the validation
            split. They are also passed to a teacher that takes ``groups``.

        Returns
        -------
        self : DistilledClassifier
            The fitted estimator.
        """
        return self._fit(FitInput(X, y, sample_weight, X_val, y_val, sample_weight_val, groups), classes)

    def _make_coding(self, is_new, classes):
        """Return a coding of labels as class numbers, which may be missing."""
        return PartlyLabeledClasses(self, classes, None if is_new else self.classes_)
