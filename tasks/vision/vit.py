"""Vision transformer whose every replaceable part comes from the recipe."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from suite.train.build import Build
from tasks.language.gpt import TransformerLayer


class ViT(nn.Module):
    """Patches, learned positions, pre-norm layers, mean over places, linear head.

    As in arXiv 2010.11929 but without the class token.

    Parameters
    ----------
    build : makes every replaceable part.
    normalise : first module, from stored images to floats.
    classes : number of classes.
    pixels, patch : side of the image and of a patch; a patch divides the image.
    features, layers, heads : width, depth and attention heads; the blocks have 2 * features hidden channels.
    """

    def __init__(
        self,
        build: Build,
        normalise: nn.Module,
        *,
        classes: int,
        pixels: int,
        patch: int,
        features: int,
        layers: int,
        heads: int,
    ) -> None:
        super().__init__()
        self.normalise = normalise
        self.patches = nn.Conv2d(3, features, patch, stride=patch)
        self.positions = nn.Embedding((pixels // patch) ** 2, features)
        self.layers = nn.Sequential(
            *(TransformerLayer(build, features, heads, 2 * features, causal=False) for _ in range(layers))
        )
        self.norm = build.norm(features)
        self.head = build.head(features, classes)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, classes) logits of (batch, 3, pixels, pixels) images."""
        x = self.patches(self.normalise(images)).flatten(2).mT
        places = torch.arange(x.shape[1], device=x.device)
        return self.head(self.norm(self.layers(x + self.positions(places))).mean(1))
