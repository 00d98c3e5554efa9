"""The network of the embedded default: a residual network for pictures of 8 x 8 pixels."""

from __future__ import annotations

from torch import Tensor, nn

CLASSES = 10
WIDTH = 24


class ResidualBlock(nn.Module):
    """relu(norm(conv(relu(norm(conv(x))))) + x); x passes a 1x1 convolution where resolution or width change."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        y = self.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        y = self.relu(y + self.shortcut(x))
        return y


class DigitsNetwork(nn.Module):
    """Stem, a stage of two residual blocks at 8 x 8, one of two at 4 x 4, global pooling, linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, WIDTH, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(WIDTH)
        self.relu = nn.ReLU()
        self.stage1 = nn.Sequential(ResidualBlock(WIDTH, WIDTH), ResidualBlock(WIDTH, WIDTH))
        self.stage2 = nn.Sequential(ResidualBlock(WIDTH, 2 * WIDTH, stride=2), ResidualBlock(2 * WIDTH, 2 * WIDTH))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(2 * WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 1, 8, 8] to logits [N, 10]."""
        x = self.relu(self.norm(self.conv(x)))
        x = self.stage2(self.stage1(x))
        return self.classifier(self.pool(x).flatten(1))
