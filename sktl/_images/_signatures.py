"""File types by their first bytes, and how to read those that Pillow cannot read."""

import re

from PIL import Image, features

# First bytes of common image formats.
_IMAGES = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"8BPS", b"\0\0\x01\0"),
    *(b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51", b"\0\0\0\x0cJXL ", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
)

# Formats that Pillow may open. The others are drawings, videos, scientific data and
# formats of old games. For an EPS file, Pillow would run whatever program is found under
# the name of Ghostscript. Formats registered with Pillow by other packages (pillow-heif,
# pillow-jxl-plugin) are allowed.
FORMATS = (
    *("AVIF", "BMP", "DDS", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "PSD", "QOI", "SGI"),
    *("TGA", "TIFF", "WEBP", "XBM", "XPM"),
)

_READER = "use sktl.preprocessing.ImageReader(reader={})"
_CONVERT = "convert it to an image first, with {}"

# (pattern of the first bytes, type of the file, how to read it)
_OTHERS = [
    (
        rb".{4}ftyp(heic|heix|heim|heis|hevc|hevx|mif1|msf1)",
        "a HEIC image",
        "pip install pillow-heif, then call pillow_heif.register_heif_opener()",
    ),
    (rb".{4}ftypavi[fs]", "an AVIF image", "pip install 'pillow>=11.3', which reads AVIF"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "a JPEG XL image", "pip install pillow-jxl-plugin, then import pillow_jxl"),
    (rb"II\xbc\x01", "a JPEG XR image", _READER.format("imagecodecs.imread")),
    (
        rb"%!PS|\xc5\xd0\xd3\xc6",
        "an EPS drawing",
        "convert it to PNG, or, if you trust the file, " + _READER.format("PIL.Image.open"),
    ),
    (rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF", "a WMF or EMF drawing", _CONVERT.format("LibreOffice or Inkscape")),
    (rb"\s*(<\?xml[^>]*>|<!--.*?-->|<!DOCTYPE svg[^>]*>|\s)*<svg", "an SVG drawing", _CONVERT.format("cairosvg")),
    (rb"%PDF", "a PDF document", _CONVERT.format("pdf2image or pymupdf, page by page")),
    (rb".{128}DICM", "a DICOM file", _READER.format("lambda path: pydicom.dcmread(path).pixel_array")),
    (rb"\x89HDF\r\n\x1a\n", "an HDF5 file", _READER.format("...") + ", with a function that uses h5py"),
    (rb"\x93NUMPY", "a NumPy array", _READER.format("numpy.load")),
    (rb"SIMPLE  =", "a FITS image", _READER.format("astropy.io.fits.getdata")),
    (
        rb"\x76\x2f\x31\x01",
        "an OpenEXR image",
        _READER.format("..., value_range=...") + ", with a function that uses OpenEXR",
    ),
    (rb"#\?(RADIANCE|RGBE)", "a Radiance HDR image", _READER.format("imageio.v3.imread, value_range=...")),
    (
        rb"(\\\x01\0\0|\0\0\x01\\).{340}(n\+1|ni1)\0",
        "a NIfTI volume",
        _READER.format("..., value_range=...") + ", with a function that uses nibabel",
    ),
    (rb"NRRD000", "an NRRD volume", _READER.format("..., value_range=...") + ", with a function that uses pynrrd"),
    (
        rb"FUJIFILMCCD-RAW|.{4}ftypcrx|II(RO|RS|U\0)",
        "a camera raw file",
        _READER.format("lambda path: rawpy.imread(path).postprocess()"),
    ),
    (rb"(II\*\0|MM\0\*|II\+\0|MM\0\+)", "a TIFF variant", "pip install 'sktl[tiff]'"),
    (rb".{4}ftyp|\x1aE\xdf\xa3|RIFF.{4}AVI ", "a video", "extract frames first, with imageio or OpenCV"),
    (rb"PK\x03\x04", "a zip archive", "pass its members as zipfile.Path(archive, name)"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ\0|7z\xbc\xaf|Rar!", "a compressed archive", "unpack it first"),
    (rb"version https://git-lfs", "a Git LFS pointer", "run `git lfs pull`"),
    (rb"\s*(<!doctype html|<html)", "an HTML page", "the download of the image probably failed, so download it again"),
]


def allowed_formats() -> list[str]:
    """Return the names of the formats that Pillow may open, in the order of Pillow."""
    Image.init()
    return [name for name in Image.ID if is_allowed(name)]


def is_allowed(name: "str | None") -> bool:
    """Check whether Pillow may open a format; None means an image without file."""
    factory = Image.OPEN[name][0] if name in Image.OPEN else None
    is_pillows = factory is not None and str(factory.__module__).partition(".")[0] == "PIL"
    return name is None or name in FORMATS or not is_pillows


def not_allowed(name: str) -> str:
    """Return the error message for a format of Pillow that is not allowed."""
    return f"the file has the format {name}, which sktl does not open: convert it to PNG, or " + _READER.format(
        "PIL.Image.open"
    )


def looks_like_image(data: bytes) -> bool:
    """Check whether bytes begin like an image; a BMP must have the right size."""
    is_bmp = data[:2] == b"BM" and int.from_bytes(data[2:6], "little") == len(data)
    is_webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    return data.startswith(_IMAGES) or data[4:8] == b"ftyp" or is_webp or is_bmp


def unsupported(data: bytes) -> "str | None":
    """Return the type of an unsupported file and how to read it, or None."""
    for pattern, kind, way_out in _OTHERS:
        if kind == "an AVIF image" and features.check("avif") and re.match(pattern, data[:512], re.DOTALL):
            return None
        if re.match(pattern, data[:512], re.DOTALL | re.IGNORECASE):
            return f"the file is {kind}, which is not supported: {way_out}"
    return None


def describe(data: bytes) -> str:
    """Return an error message for a file that Pillow could not open."""
    other = unsupported(data)
    if other is not None:
        return f"{other}."
    if looks_like_image(data):
        return "the file cannot be decoded because it is damaged or truncated."
    for name, (_, accept) in Image.OPEN.items():  # checks the first bytes only
        if not is_allowed(name) and accept is not None and accept(data[:16]) is True:
            return f"{not_allowed(name)}."
    return f"the file is not an image in a supported format (it begins with {data[:12]!r})."
