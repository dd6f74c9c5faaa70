"""The pictures that ``sktl_mini`` learns from: endless seeded variants of a few thousand unlabelled pictures.

``PictureSource(folder).variant(i)`` is the i-th training picture, always the same one for the same ``i``: a crop of a
photo, a drawing or a small object, or a picture drawn here (letters, strokes, shapes, textures), then perhaps blended,
made grey, inverted, faded, noisy, or shrunk to a few pixels, as glyphs are. Digits are never drawn: scikit-learn's
digits measure the network.
"""

import io
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont, ImageOps

SIDE = 252  # pictures are made this wide, and their central 224 x 224 kept
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz&@#?!+*%<>{}~"
SHARES = {"photo": 0.40, "pacs": 0.24, "cifar": 0.12, "coil": 0.04, "drawn": 0.20}


def _jpegs(blob: np.ndarray, offsets: np.ndarray) -> list[bytes]:
    raw = blob.tobytes()
    return [raw[a:b] for a, b in pairwise(offsets)]


def _read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


class PictureSource:
    """All training pictures, by number.

    Parameters
    ----------
    folder : Path
        With ``imagenet_sample/images``, ``pacs``, ``cifar10_jpeg/train.npz`` and ``da_small/coil20_1_2_32x32.npz``.
    seed : int, default=0
        Another seed gives other variants of the same pictures.
    held_out : bool, default=False
        Take every twentieth picture of the folder, or all the others.
    """

    def __init__(self, folder: Path, *, seed: int = 0, held_out: bool = False):
        self.seed = seed
        cifar = np.load(folder / "cifar10_jpeg" / "train.npz")
        coil = np.load(folder / "da_small" / "coil20_1_2_32x32.npz")
        pictures: dict[str, list] = {
            "photo": [_read(path) for path in sorted((folder / "imagenet_sample" / "images").glob("*.jpg"))],
            "pacs": [_read(path) for path in sorted((folder / "pacs").glob("*/*/*.jpg"))],
            "cifar": _jpegs(cifar["blob"], cifar["offsets"]),
            "coil": list(np.concatenate([coil["coil1_x"], coil["coil2_x"]])),
        }
        self.pictures = {
            kind: [item for i, item in enumerate(items) if (i % 20 == 0) == held_out]
            for kind, items in pictures.items()
        }
        self._fonts = {size: ImageFont.load_default(size) for size in range(40, 241, 20)}

    def variant(self, index: int) -> Image.Image:
        """Return picture ``index``, 224 x 224."""
        rng = np.random.default_rng((self.seed, index))
        kind = str(rng.choice(list(SHARES), p=list(SHARES.values())))
        picture = self._drawn(rng) if kind == "drawn" else self._crop(kind, rng)
        if kind in ("photo", "pacs") and rng.random() < 0.12:
            picture = _blend(picture, self._crop(kind, rng), rng)
        picture = _recolour(picture, rng)
        if rng.random() < (0.5 if kind in ("drawn", "coil") else 0.1):
            side = int(rng.integers(8, 41))
            picture = picture.resize((side, side), Image.Resampling.BILINEAR)
        return picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR).crop((14, 14, SIDE - 14, SIDE - 14))

    def _crop(self, kind: str, rng: np.random.Generator) -> Image.Image:
        """Return a random crop, at most SIDE wide, of a random picture of this kind."""
        pictures = self.pictures[kind]
        item = pictures[int(rng.integers(len(pictures)))]
        with Image.open(io.BytesIO(item)) if isinstance(item, bytes) else Image.fromarray(item) as opened:
            picture = opened.convert("RGB")
        smallest = {"photo": 0.1, "pacs": 0.25}.get(kind, 0.7)
        width, height = picture.size
        side = min(width, height) * np.sqrt(rng.uniform(smallest, 1.0))
        stretch = np.exp(rng.uniform(-0.25, 0.25))
        w, h = min(side * stretch, width), min(side / stretch, height)
        x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
        out = (SIDE, SIDE) if max(w, h) > 64 else (round(w), round(h))
        picture = picture.resize(out, Image.Resampling.BILINEAR, box=(x, y, x + w, y + h), reducing_gap=2.0)
        if kind not in ("cifar", "photo") and rng.random() < 0.3:
            picture = _on_plain_ground(picture, rng)
        return ImageOps.mirror(picture) if rng.random() < 0.5 else picture

    def _drawn(self, rng: np.random.Generator) -> Image.Image:
        """Draw letters, strokes, shapes (plain or cut out of a photo) or a texture."""
        choice = rng.random()
        if choice < 0.15:
            return _texture(rng)
        mask = Image.new("L", (SIDE, SIDE))
        draw = ImageDraw.Draw(mask)
        if choice < 0.40:
            self._letters(draw, rng)
        elif choice < 0.70:
            _strokes(draw, rng)
        else:
            _shapes(draw, rng)
        affine = (np.eye(2) + rng.normal(0, 0.15, (2, 2))) / rng.uniform(0.8, 1.6)
        centre = np.full(2, SIDE / 2)
        shift = centre - affine @ (centre + rng.normal(0, 12, 2))
        mask = mask.transform(
            mask.size, Image.Transform.AFFINE, (*affine[0], shift[0], *affine[1], shift[1]), Image.Resampling.BILINEAR
        )
        if rng.random() < 0.5:
            mask = mask.filter(ImageFilter.GaussianBlur(rng.uniform(1, 8)))
        filling = choice >= 0.70 and rng.random() < 0.6
        ink = self._crop("photo", rng).resize(mask.size) if filling else Image.new("RGB", mask.size, _colour(rng))
        ground = Image.new("RGB", mask.size, (0, 0, 0) if rng.random() < 0.5 else _colour(rng))
        if not filling and rng.random() < 0.4:
            ink, ground = Image.new("RGB", mask.size, (255, 255, 255)), Image.new("RGB", mask.size, (0, 0, 0))
        return Image.composite(ink, ground, mask)

    def _letters(self, draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
        size = int(rng.choice(list(self._fonts), p=np.arange(1, 12) / 66))
        n = 1 if size > 120 else int(rng.integers(1, 4))
        text = "".join(rng.choice(list(LETTERS), n))
        width = int(rng.integers(0, max(1, size // 16)))
        draw.text((SIDE / 2, SIDE / 2), text, fill=255, font=self._fonts[size], anchor="mm", stroke_width=width)


def _colour(rng: np.random.Generator) -> tuple[int, ...]:
    """Return a random colour, grey half of the time."""
    return tuple(map(int, np.repeat(rng.integers(0, 256), 3) if rng.random() < 0.5 else rng.integers(0, 256, 3)))


def _strokes(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """Draw one to four curved strokes (cubic Bezier curves, sometimes closed) with a round pen."""
    t = np.linspace(0, 1, 60)[:, None]
    pen = rng.uniform(3, 20)
    for _ in range(rng.integers(1, 5)):
        a, b, c, d = rng.uniform(25, SIDE - 25, (4, 2))
        if rng.random() < 0.3:
            d = a
        points = (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t**2 * c + t**3 * d
        for x, y in points:
            draw.ellipse((x - pen, y - pen, x + pen, y + pen), fill=255)
        draw.line([tuple(p) for p in points], fill=255, width=int(2 * pen))


def _shapes(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """Draw one to four ellipses, boxes or star-shaped polygons, every other one cut out half of the time."""
    for i in range(rng.integers(1, 5)):
        fill = 0 if i % 2 and rng.random() < 0.5 else 255
        (x, y), (w, h) = rng.uniform(60, SIDE - 60, 2), rng.uniform(15, 110, 2)
        form = rng.integers(3)
        if form == 0:
            draw.ellipse((x - w, y - h, x + w, y + h), fill=fill)
        elif form == 1:
            draw.rectangle((x - w, y - h, x + w, y + h), fill=fill)
        else:
            angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 12)))
            radius = rng.uniform(0.4, 1, len(angles))
            corners = zip(x + w * radius * np.cos(angles), y + h * radius * np.sin(angles), strict=True)
            draw.polygon(list(corners), fill=fill)


def _texture(rng: np.random.Generator) -> Image.Image:
    """Return a grating, a checkerboard or coloured noise with a random power spectrum, in two random colours."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    form = rng.integers(3)
    if form == 2:
        f = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None]) + 1 / SIDE
        spectrum = np.fft.rfft2(rng.normal(size=(SIDE, SIDE))) * f ** -rng.uniform(0.3, 2)
        wave = np.fft.irfft2(spectrum, (SIDE, SIDE))
        wave = wave / wave.std()
    else:
        angle, frequency, phase = rng.uniform(0, np.pi), np.exp(rng.uniform(0.5, 3.5)), rng.uniform(0, 6.3, 2)
        u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
        wave = np.sin(6.28 * frequency * u + phase[0])
        wave = wave * np.sin(6.28 * frequency * v + phase[1]) if form else wave
        wave = wave * np.exp(rng.uniform(-0.5, 2))
    wave = np.clip(wave, -1, 1)[..., None] / 2 + 0.5
    pixels = wave * np.array(_colour(rng)) + (1 - wave) * np.array(_colour(rng))
    return Image.fromarray(pixels.astype(np.uint8))


def _on_plain_ground(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Shrink the picture and put it somewhere on a plain ground of its own corner's colour."""
    width, height = picture.size
    ground = Image.new("RGB", picture.size, picture.getpixel((0, 0)))
    share = rng.uniform(0.4, 0.9)
    w, h = max(1, int(width * share)), max(1, int(height * share))
    at = (int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1)))
    ground.paste(picture.resize((w, h), Image.Resampling.BILINEAR), at)
    return ground


def _blend(a: Image.Image, b: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Mix two pictures, or put a part of one over the other."""
    b = b.resize(a.size)
    if rng.random() < 0.5:
        return Image.blend(a, b, rng.uniform(0.2, 0.8))
    width, height = a.size
    w, h = int(width * rng.uniform(0.3, 0.8)), int(height * rng.uniform(0.3, 0.8))
    x, y = int(rng.integers(width - w)), int(rng.integers(height - h))
    a = a.copy()
    a.paste(b.crop((x, y, x + w, y + h)), (x, y))
    return a


def _recolour(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Make the picture grey, inverted, faded, hard, blurred or noisy, each now and then."""
    if rng.random() < 0.25:
        picture = picture.convert("L").convert("RGB")
    if rng.random() < 0.12:
        picture = ImageChops.invert(picture)
    if rng.random() < 0.10:
        low, high = sorted(rng.uniform(0, 255, 2))
        picture = picture.point([low + (high - low) * v / 255 for v in range(256)] * 3)
    if rng.random() < 0.10:
        gamma = np.exp(rng.uniform(-0.7, 0.7))
        picture = picture.point([255 * (v / 255) ** gamma for v in range(256)] * 3)
    if rng.random() < 0.05:
        picture = ImageOps.autocontrast(picture, cutoff=float(rng.uniform(2, 25)))
    if rng.random() < 0.06:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.01, 0.03) * picture.width))
    if rng.random() < 0.06:
        noise = rng.normal(0, rng.uniform(4, 30), (picture.height, picture.width, 3))
        picture = Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8))
    return picture
