"""Format of the images seen during fit."""

from dataclasses import dataclass

Range = tuple[float, float]


@dataclass(frozen=True)
class ImageFormat:
    """Format of the images seen during ``fit``.

    Attributes
    ----------
    kind : {"files", "images", "batch", "rows"}
        Kind of ``X``: ``"files"`` for paths or encoded files, ``"images"`` for a list
        of PIL images or arrays, ``"batch"`` for one array of images, ``"rows"`` for
        flat rows of pixels.
    shape : (H, W, C) or None
        Shape to which flat rows are reshaped. None for other kinds, in which images may
        differ in size.
    channels : {"first", "last"} or None
        Position of the channel axis in arrays. None if no array with channels was seen.
    value_range : (low, high) or None
        Values that are scaled to 0 and 255. None if only files were seen.
    order : {"C", "F"}
        Order of the pixels in flat rows: line by line (``"C"``), or column by column
        (``"F"``).
    uint16_range : (low, high) or None
        Values of 16-bit arrays and files that are scaled to 0 and 255. None scales the
        full range 0-65535.
    """

    kind: str
    shape: tuple[int, int, int] | None = None
    channels: str | None = None
    value_range: Range | None = None
    order: str = "C"
    uint16_range: Range | None = None

    @property
    def is_gray(self) -> bool:
        """True if grayscale arrays without a channel axis were seen."""
        if self.kind == "rows":
            return self.shape is not None and self.shape[2] == 1
        return self.kind != "files" and self.channels is None and self.value_range is not None
