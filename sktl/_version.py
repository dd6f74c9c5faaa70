"""Version of sktl."""

__version__ = "0.1.0"
