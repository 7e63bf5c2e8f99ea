from torch import Tensor, nn
from torch.nn import functional as F

from baselines.activation.surrogate import straight_through
from suite import Paper, activation


@activation(
    "rep-relu",
    paper=Paper("Non-negative Contrastive Learning", arxiv="2403.12459", year=2024),
    families=("vision", "language"),
    confidence="verified",
    surrogate=True,
)
class RepReLU(nn.Module):
    """ReLU forward, gradient of the exact GELU backward.

    In the paper it rectifies the feature vector of a contrastive loss; here it is a hidden activation.
    """

    def forward(self, x: Tensor) -> Tensor:
        return straight_through(F.gelu(x), F.relu(x.detach()))
