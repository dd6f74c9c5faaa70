"""The packaged backbone ``sktl_mini``: network and preprocessing.

The weights are in ``sktl_mini.safetensors`` and described in ``sktl_mini.md``.
``tools/train_sktl_mini.py`` trains such a network.
"""

from torch import Tensor, nn

from sktl.backbones._preprocessing import Preprocessing

#: Images are not cropped, because small glyphs often touch the border.
MINI_PREPROCESSING = Preprocessing(
    resize_size=64,
    crop_size=64,
    interpolation="bilinear",
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    antialias=True,
)

#: Width of the original head, which predicts principal components of teacher features.
N_COMPONENTS = 256


class ResidualBlock(nn.Module):
    """Residual block of two 3 x 3 convolutions.

    Parameters
    ----------
    n_in, n_mid, n_out : int
        Channels before, between and after the two convolutions.
    stride : int, default=1
        Stride of the first convolution and of the shortcut.
    """

    def __init__(self, n_in: int, n_mid: int, n_out: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_mid, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_mid)
        self.conv2 = nn.Conv2d(n_mid, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or n_in != n_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(n_in, n_out, 1, stride=stride, bias=False),
                nn.BatchNorm2d(n_out),
            )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, n_in, h, w) to (n, n_out, h / stride, w / stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + self.shortcut(x))


class SktlMini(nn.Module):
    """Residual network of four blocks with 1.8 million parameters.

    It takes 61 million multiply-accumulates at 64 x 64. It halves the resolution four
    times and ends with 512 channels, because a linear model reads the average of the
    last stage. Widths are multiples of 16, the block size of CPU convolutions. The only
    expensive resolution, that of layer1, is kept narrow inside the block.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 32, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
        )
        self.layer1 = ResidualBlock(32, 16, 32)
        self.layer2 = ResidualBlock(32, 64, 64, stride=2)
        self.layer3 = ResidualBlock(64, 128, 128, stride=2)
        self.layer4 = ResidualBlock(128, 224, 512, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten(1)
        self.fc = nn.Linear(512, N_COMPONENTS)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalized images (n, 3, h, w) to principal components (n, 256)."""
        x = self.stem(x)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.flatten(self.avgpool(x)))


def sktl_mini() -> nn.Module:
    """Return the ``sktl_mini`` network with random weights.

    Returns
    -------
    module : nn.Module
        Network with children ``stem``, ``layer1`` to ``layer4``, ``avgpool``,
        ``flatten`` and the original head ``fc``. It maps float images of shape (n, 3,
        h, w), normalized as in ``MINI_PREPROCESSING``, to shape (n, 256). It accepts
        any size, but was designed for 64 x 64.

    Examples
    --------
    >>> import torch
    >>> from sktl.backbones._mini import sktl_mini
    >>> tuple(sktl_mini()(torch.zeros(2, 3, 64, 64)).shape)
    (2, 256)
    """
    return SktlMini()
