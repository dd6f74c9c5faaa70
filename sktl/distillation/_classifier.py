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
    """Move what a classifier knows into a small network.

    The teacher may be any scikit-learn classifier: a fine-tuned network, a pipeline of features and a support vector
    machine, a forest. It is asked once per picture, over all epochs, folds and candidates of a grid search; the student
    learns from its answers, from its layers where it has some, and from the labels:
    ``alpha * (weighted sum of the knowledge) + (1 - alpha) * cross-entropy``.

    Read more in the user guide, page "Distillation".

    Parameters
    ----------
    teacher : estimator
        What is to be learnt from: any classifier. It is cloned and fitted; inside a `sklearn.frozen.FrozenEstimator` a
        fitted one is used as it is. It sees ``X`` as `fit` gets it, with its own preprocessing.
    student : str, Module, Backbone or fitted sktl estimator, default="sktl_mini"
        The network that learns: a name that `sktl.backbones.list_backbones` gives, a name of timm after ``"timm:"``, or
        a network of your own, which is copied and not changed. A fitted sktl estimator lends its trained network.
    weights : str, path-like or None, default="default"
        ``"default"`` (the best published for that backbone), a published name such as ``"IMAGENET1K_V1"``, the path of
        a local state dict (``.safetensors``, ``.pt``, ``.ckpt`` ...), or None for random weights.
    knowledge : str or dict of str to float, default="response"
        What is learnt from the teacher: one kind, or weights of several. ``"response"`` (its softened answers [1]_),
        ``"decoupled"`` (these, the target class apart from the others [2]_), ``"feature"`` (the numbers in its layers,
        after a learned map [3]_), ``"attention"`` (where in a picture they are large [4]_), ``"relation"`` (distances
        and angles between pictures in its last layer [5]_), ``"similarity"`` (their inner products there [6]_). All
        but the first two need a teacher with a network of sktl.
    temperature : float, default=4.0
        What logits are divided by before student and teacher are compared. Higher ones say more about the unlikely
        classes.
    alpha : float, default=0.9
        The teacher's share of the loss, from 0 to 1: ``alpha * teacher + (1 - alpha) * labels``. 0 is the student
        alone, and with 1 labels are not looked at.
    beta : float, default=8.0
        Weight of the other classes beside the target in ``"decoupled"``. Not used otherwise.
    layers : "auto" or list of (str, str), default="auto"
        Which layers ``"feature"`` and ``"attention"`` compare: pairs of a stage or layer of the teacher and one of the
        student; ``"auto"`` takes the last stages of each resolution, from the smallest one on, as far as both networks
        have them and the student's learn. The teacher's maps are averaged to the student's resolution. Not used
        otherwise.
    unlabeled : object, default=None
        The label of pictures that have none, such as -1: they give the teacher's part of the loss only. NaN means
        labels that are missing, also as None or pandas.NA. None takes all labels for labels.
    freeze_depth : int or str, default=-1
        How many stages are frozen, counted from the input: 0 trains all, a negative number counts from the end (-1:
        all but the last stage are frozen), ``"all"`` trains the head alone, a stage's name freezes up to and including
        it. What is frozen runs once per picture and is bit-identical after `fit`.
    head : "linear", tuple of int or Module, default="linear"
        What is put on the network: one linear layer, hidden layers of these widths with ReLU in front of it, or a
        network of your own, which is copied and maps features (n, n_features) to outputs (n, n_classes).
    head_init : {"probe", "random"}, default="probe"
        How the head's last layer starts: fitted to the untouched network's features (logistic regression), or random.
        A head that fits already does not tear the pretrained features apart in its first steps [7]_.
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
        What becomes of all learning rates during `fit`.
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
        Gradual unfreezing [8]_: training starts with the head alone, and after every so many epochs one more stage
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
    teacher_ : estimator
        The fitted teacher. A fitted student is pickled without it.
    teacher_answers_ : {"logits", "probabilities", "decision values", "labels"}
        What the teacher was asked for, the most telling that it has.
    footprint_ : Footprints
        What teacher and student cost: parameters, bytes, multiply-accumulates, milliseconds for a picture; and how
        much they agree. Measured when it is first asked for.
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
    image_column_ : str or int
        The column of images, where ``X`` was a table of several columns: the student reads this one, the teacher sees
        the whole table. Defined only there.
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
        From `fit`, where the student, a stage or a layer is unknown; the message lists the stages.
    DivergenceError
        From `fit`, where losses or outputs are no finite numbers any more. The estimator keeps the weights of the last
        good epoch.
    KeyboardInterrupt
        From `fit`, where Ctrl-C ended it. A student that was trained keeps the weights of the last whole epoch; a
        teacher that was trained is not remembered.
    NotFittedError
        From `fit`, where a frozen teacher is not fitted.
    WeightsDownloadError, WeightsMismatchError, FileNotFoundError
        From `fit`, where weights cannot be downloaded, belong to another network, or are not there.
    TypeError
        From `fit`, where the teacher is a class and no instance of one.
    ValueError
        From `fit`, where a parameter is out of its range, ``y`` has one class only, the teacher knows other classes
        than ``y``, or knowledge is asked for that it does not have.

    Warns
    -----
    TrainingWarning
        From `fit`, where there are weights of rows that the teacher cannot take.

    See Also
    --------
    DistilledRegressor : The same for numbers.
    sktl.FineTunedClassifier : A network that learns from labels alone.
    sktl.inspection.DistillationDisplay : Accuracy against size and time.

    Notes
    -----
    Of a teacher's answers logits are preferred (``decision_function``, where it agrees with ``predict_proba``), then
    probabilities, then decision values, then labels. Probabilities are turned into logits by their logarithm, those
    below 1e-7 taken for 1e-7. Decision values have a scale of their own: `sklearn.calibration.CalibratedClassifierCV`
    around such a teacher gives probabilities.

    The teacher judges each picture as it is, also where ``augment`` shows the student another view of it.

    The answers of a teacher are kept in ``cache`` under all that it is and the picture as it was given. Of a class or
    function of your own that is its code; what it calls elsewhere is not looked at. A teacher that is not frozen is
    fitted once for the same rows and parameters while this process lives, if its ``random_state`` is a number.

    References
    ----------
    .. [1] Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015.
    .. [2] Zhao et al., "Decoupled Knowledge Distillation", CVPR 2022.
    .. [3] Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015.
    .. [4] Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017.
    .. [5] Park et al., "Relational Knowledge Distillation", CVPR 2019.
    .. [6] Tung and Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019.
    .. [7] Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", ICLR 2022.
    .. [8] Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification", ACL 2018.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sktl import DistilledClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> X = X / 16  # 0-16 to 0-1
    >>> student = DistilledClassifier(RandomForestClassifier(random_state=0), max_epochs=3, random_state=0)
    >>> bool(student.fit(X[:300], y[:300]).score(X[300:500], y[300:500]) > 0.8)
    True
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
        beta=8.0,
        layers="auto",
        unlabeled=None,
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
        self.teacher = teacher
        self.student = student
        self.weights = weights
        self.knowledge = knowledge
        self.temperature = temperature
        self.alpha = alpha
        self.beta = beta
        self.layers = layers
        self.unlabeled = unlabeled
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
        """Fit the teacher where it is not frozen, ask it, and train the student.

        Parameters
        ----------
        X : array-like of pictures
            Paths, pictures, a batch array or rows of pixels, see the user guide.
        y : array-like of shape (n_pictures,), default=None
            Labels of any kind; those equal to ``unlabeled`` are none. A frozen teacher can do without any.
        sample_weight : array-like of shape (n_pictures,), default=None
            Weights of the rows, for the student and for a teacher that takes them; a weight of zero is a row that is
            not there.
        classes : array-like of shape (n_classes,), default=None
            All labels, where ``y`` may not have them all: a class without a row is learnt from the teacher alone. None
            takes those in ``y``, and where there are none the teacher's.
        X_val : array-like of pictures, default=None
            Pictures to judge on after each epoch, in place of a share of ``X``.
        y_val : array-like, default=None
            Their labels.
        sample_weight_val : array-like of shape (n_pictures_val,), default=None
            Their weights.
        groups : array-like of shape (n_images,), default=None
            What each row of ``X`` belongs to, such as the subject or the original of near-copies: numbers or strings.
            Rows of a group stay on one side where rows are set aside (``early_stopping``), and a teacher that takes
            ``groups`` gets them. Not used otherwise.

        Returns
        -------
        self : DistilledClassifier
            The fitted estimator.
        """
        return self._fit(FitInput(X, y, sample_weight, X_val, y_val, sample_weight_val, groups), classes)

    def _make_coding(self, is_new, classes):
        """Class numbers, of which a row without a label has none."""
        return PartlyLabeledClasses(self, classes, None if is_new else self.classes_)
