"""What is learnt from pictures at fit."""

from dataclasses import dataclass

Range = tuple[float, float]


@dataclass(frozen=True)
class ImageFormat:
    """What was learnt from the pictures given to ``fit``.

    Attributes
    ----------
    kind : {"files", "images", "batch", "rows"}
        What was given: paths or encoded files; a list of PIL images or arrays; one array of pictures; flat rows.
    shape : (H, W, C) or None
        The shape that flat rows are unfolded to; None for everything else, where each picture has its own.
    channels : {"first", "last"} or None
        Where arrays keep their channels; None where no array told.
    value_range : (low, high) or None
        The values that become 0 and 255; None where the pictures were files.
    order : {"C", "F"}
        How flat rows are unfolded: by rows, or by columns as in EMNIST.
    uint16_range : (low, high) or None
        The 16-bit values, in arrays and in files, that become 0 and 255; None takes all of them, 0-65535.
    """

    kind: str
    shape: tuple[int, int, int] | None = None
    channels: str | None = None
    value_range: Range | None = None
    order: str = "C"
    uint16_range: Range | None = None

    @property
    def is_gray(self) -> bool:
        """Whether arrays of gray images were seen, so that one without a channel axis is nothing new."""
        if self.kind == "rows":
            return self.shape is not None and self.shape[2] == 1
        return self.kind != "files" and self.channels is None and self.value_range is not None
