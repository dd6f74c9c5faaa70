"""Base class of the network architectures that sktl knows by name."""

from abc import ABC, abstractmethod
from pathlib import Path

from torch import nn

from sktl.backbones._preprocessing import Preprocessing
from sktl.backbones._weights_files import StateDict


class Architecture(ABC):
    """A network architecture that is known by its name.

    Attributes
    ----------
    name : str
        Name of the architecture, as the user gives it.
    published : tuple of str
        Names of its published weights. Empty without any.
    default : str or None
        Name of the best published weights.
    swept : bool
        Whether ``tests/backbones/check_all_models.py`` compared the network with its
        graph.
    caveat : str or None
        Training preprocessing that `Preprocessing` cannot express. If given, the user
        has to choose the preprocessing.
    classifies : bool
        Whether the original head is a classifier.
    """

    name: str
    published: tuple[str, ...]
    default: str | None
    swept: bool = True
    caveat: str | None = None
    classifies: bool = True

    @abstractmethod
    def build(self, state: StateDict | None, preprocessing: Preprocessing) -> nn.Module:
        """Return the network with random weights, in the shapes of ``state``.

        Without ``state``, its shapes are those for the images of ``preprocessing``.
        """

    @abstractmethod
    def fetch(self, weights: str) -> StateDict:
        """Return the published weights of this name."""

    @abstractmethod
    def preprocessing(self, weights: str | None, path: Path | None = None) -> Preprocessing:
        """Return the preprocessing of the weights.

        If the name of a weights file is that of published weights, it is theirs; for
        other files and random weights, it is that of the default weights.
        """

    def adjust(self, state: StateDict) -> StateDict:
        """Convert the names of old weights files to current ones."""
        return state
