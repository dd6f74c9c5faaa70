"""The version of sktl, for all floors of the house."""

__version__ = "0.1.0"
