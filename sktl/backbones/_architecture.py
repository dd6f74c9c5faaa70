"""What sktl has to know of a network by name."""

from abc import ABC, abstractmethod
from pathlib import Path

from torch import nn

from sktl.backbones._preprocessing import Preprocessing
from sktl.backbones._weights_files import StateDict


class Architecture(ABC):
    """A network by its name.

    Attributes
    ----------
    name : str
        The name a user gives.
    published : tuple of str
        Names of its published weights; empty where there are none.
    default : str or None
        The best of them.
    swept : bool
        Whether ``tests/backbones/check_all_models.py`` has compared it with its graph.
    caveat : str or None
        In what the weights were trained on pictures that no `Preprocessing` gives; the user then has to choose one.
    classifies : bool
        Whether its source head gives one number for each class.
    """

    name: str
    published: tuple[str, ...]
    default: str | None
    swept: bool = True
    caveat: str | None = None
    classifies: bool = True

    @abstractmethod
    def build(self, state: StateDict | None, preprocessing: Preprocessing) -> nn.Module:
        """The network with random weights, such that ``state`` will fit; without one, such pictures will."""

    @abstractmethod
    def fetch(self, weights: str) -> StateDict:
        """The published weights of that name."""

    @abstractmethod
    def preprocessing(self, weights: str | None, path: Path | None = None) -> Preprocessing:
        """How the weights want their pictures: a file of a published name as those weights, else as the default."""

    def adjust(self, state: StateDict) -> StateDict:
        """Bring the keys of a weights file up to date."""
        return state
