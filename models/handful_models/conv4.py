"""The four-block convolutional encoder of few-shot learning.

Vinyals, Blundell, Lillicrap, Kavukcuoglu, Wierstra, "Matching Networks for One Shot Learning" (2016), §4.1:
four times 3 x 3 convolution, batch normalisation, ReLU, 2 x 2 max-pooling.
"""

import torch
from torch import Tensor, nn

BLOCKS = 4


class Conv4(nn.Module):
    """Features `[batch, width]`, float32, of images `[batch, 1, 28, 28]`, float32 in 0..1 with high ink."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.blocks = nn.Sequential(_block(1, width), *(_block(width, width) for _ in range(BLOCKS - 1)))

    def forward(self, images: Tensor) -> Tensor:
        """Features of the images; see the class."""
        features: Tensor = self.blocks(images.contiguous(memory_format=torch.channels_last))
        return features.flatten(1).float()


def _block(channels_in: int, channels_out: int) -> nn.Sequential:
    # Pooling before ReLU gives the same values (max and ReLU commute) and a quarter of ReLU's memory traffic.
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1),
        nn.BatchNorm2d(channels_out),
        nn.MaxPool2d(2),
        nn.ReLU(),
    )
