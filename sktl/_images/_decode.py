"""The one place where a picture is decoded: encoded bytes or a PIL image to ``uint8`` pixels.

Choices that decide the pixels:

* transparency is composited on **white**, as a browser shows it;
* CMYK becomes RGB by Pillow's formula, without the file's colour profile;
* 16-bit grey is divided by 257 and rounded (16-bit colour: Pillow keeps the high byte);
* EXIF orientation is applied; of an animation the first frame is taken.
"""

from io import BytesIO
from threading import Lock

import numpy as np
import PIL
from PIL import Image, ImageFile

from sktl._images._convert import to_uint8
from sktl.exceptions import ImageError

# Everything besides a file's bytes that decides its pixels; raise the number when this module's choices change.
DECODER = f"sktl 1, pillow {PIL.__version__}"

# Pillow's own default limit: a quarter of a gigabyte of RGB. Checked here because Pillow's is a global that others
# change, and because between one and two times that limit Pillow only warns.
MAX_PIXELS = 1024**3 // 4 // 3

_MODES = {1: "L", 3: "RGB"}
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LOAD = Lock()


def decode(data: bytes, in_channels: int, name: str) -> np.ndarray:
    """Decode an encoded file.

    Parameters
    ----------
    data : bytes
        The whole file.
    in_channels : {1, 3}
        Channels wanted.
    name : str
        How errors call the picture.

    Returns
    -------
    pixels : ndarray of shape (H, W, in_channels), dtype uint8
        C-contiguous; may be read-only.

    Raises
    ------
    ImageError
        If the bytes are no picture, are cut short, or hold more than ``MAX_PIXELS`` pixels.
    """
    if not data:
        raise ImageError(f"{name}: the file is empty (0 bytes).")
    stream = _Watched(data) if ImageFile.LOAD_TRUNCATED_IMAGES else BytesIO(data)
    try:
        with Image.open(stream) as image:
            _check_size(image, name)
            image.load()
            if isinstance(stream, _Watched) and stream.ran_dry and image.format in ("JPEG", "MPO", "PNG"):
                raise ImageError(f"{name}: the file is cut short.")
            return _to_pixels(image, in_channels, name)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{name}: {_too_large(error)}") from error
    except (ImageError, MemoryError, Warning):  # a warning is only raised where the user's filters ask for that
        raise
    except PIL.UnidentifiedImageError as error:
        raise ImageError(
            f"{name}: not a picture in a format that Pillow can read (the file begins with {data[:12]!r})."
        ) from error
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, ...
        raise ImageError(f"{name}: cannot be decoded, the file is damaged or cut short ({error}).") from error


def decode_pil(image: Image.Image, in_channels: int, name: str) -> np.ndarray:
    """Turn a PIL image into ``uint8`` pixels of shape (H, W, in_channels); the image itself is not changed.

    Raises
    ------
    ImageError
        If the image was opened lazily and its file cannot be read, or if its mode has no known value range.
    """
    _check_size(image, name)
    try:
        # One image may stand in a list twice, and loading one from two threads corrupts Pillow's decoder.
        with _LOAD:
            image.load()
        return _to_pixels(image, in_channels, name)
    except (ImageError, MemoryError, Warning):
        raise
    except Exception as error:
        raise ImageError(f"{name}: this PIL image cannot be read ({error}).") from error


def convert_channels(pixels: np.ndarray, in_channels: int, name: str) -> np.ndarray:
    """Turn ``uint8`` pixels of 1, 3 or 4 channels into 1 or 3, by the same rules as a file's."""
    if pixels.shape[2] == in_channels:
        return np.ascontiguousarray(pixels)
    if pixels.shape[2] == 1:
        return np.repeat(pixels, in_channels, axis=2)
    return _to_pixels(Image.fromarray(np.ascontiguousarray(pixels)), in_channels, name)


class _Watched(BytesIO):
    """A stream that remembers having been read past its end.

    While the process has ``ImageFile.LOAD_TRUNCATED_IMAGES`` set, Pillow fills what is missing with grey and says
    nothing. That switch belongs to whoever set it, so the missing bytes are noticed here instead.
    """

    ran_dry = False

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.ran_dry = self.ran_dry or not data
        return data


def _check_size(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"{name}: {_too_large(f'{width} x {height} pixels')}")
    if not width * height:
        raise ImageError(f"{name}: the picture has no pixels (its size is {width} x {height}).")


def _too_large(what: object) -> str:
    return (
        f"not decoded, it may be a decompression bomb ({what}; the limit is {MAX_PIXELS} pixels). "
        "If the file is to be trusted, shrink it first or pass its pixels as an array."
    )


def _to_pixels(image: Image.Image, in_channels: int, name: str) -> np.ndarray:
    """Turn a loaded PIL image into pixels; converts only where the image is not yet what is wanted."""
    if in_channels not in _MODES:
        raise ImageError(
            f"{name}: in_channels={in_channels}, but a decoded picture has 1 or 3 channels; pass arrays instead."
        )
    mode = _MODES[in_channels]
    image = _upright(image)
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _from_16_bit(image)
    elif image.mode == "F":
        raise ImageError(f"{name}: PIL mode 'F' holds floats of unknown range; pass them as arrays or as mode 'L'.")
    elif image.has_transparency_data:
        image = _on_white(image)
    if image.mode != mode:
        image = image.convert(mode)
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]


def _upright(image: Image.Image) -> Image.Image:
    try:
        method = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged metadata says nothing about the pixels
        return image
    return image if method is None else image.transpose(method)


def _from_16_bit(image: Image.Image) -> Image.Image:
    # Pillow's own conversion to 8 bits clips at 255 instead of scaling.
    values = np.clip(np.asarray(image), 0, 65535).astype(np.uint16)
    return Image.fromarray(to_uint8(values, None))


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":  # premultiplied grey has no direct way to RGBA
        image = image.convert("LA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
