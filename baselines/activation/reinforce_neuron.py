import torch
from torch import Tensor, nn

from baselines.activation.channels import channel_dim, over_channels
from suite import Paper, Uniform, activation


@activation(
    "reinforce-neuron",
    paper=Paper(
        "Estimating or Propagating Gradients Through Stochastic Neurons for Conditional Computation",
        arxiv="1308.3432",
        year=2013,
    ),
    defaults={"keep": 0.9},
    space={"keep": Uniform(0.5, 0.99)},
    families=("vision", "language"),
    system="stochastic-neurons",
    stochastic=True,
    vmap=False,
    compiles=False,
)
class ReinforceNeuron(nn.Module):
    """Binary neuron, 1 with probability p = σ(x), with the unbiased gradient estimate (h - p)(L - b) from the loss.

    L is the loss of the example (of the whole sequence, in language tasks); nothing is propagated back
    through the draw h. b = E[(h - p)² L]/E[(h - p)²], which makes the variance least, is kept in running averages
    over earlier batches, one a channel. In evaluation the expectation σ(x) stands for the draw.

    Parameters
    ----------
    features : channels, or None for one shared baseline.
    keep : share of the running averages that a batch leaves.
    """

    def __init__(self, features: int | None = None, keep: float = 0.9) -> None:
        super().__init__()
        self.keep = keep
        self.register_buffer("weighted", torch.zeros(() if features is None else features))
        self.register_buffer("weight", torch.zeros(() if features is None else features))
        self.seen: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        p = torch.sigmoid(x)
        if not self.training:
            return p
        fires = torch.rand_like(x, dtype=torch.float32) < p.detach().float()
        drawn = torch.where(x.detach().isnan(), x.detach(), fires.to(x.dtype))
        self.seen = (x, drawn - p.detach()) if x.requires_grad else None
        return drawn

    def score_loss(self, losses: Tensor) -> Tensor:
        """A term of value 0 whose gradient in the last input is the estimate, for the (batch,) losses of its examples.

        Raises
        ------
        ValueError : the last input has another number of examples.
        """
        if self.seen is None:
            return losses.new_zeros(())
        (x, gap), self.seen = self.seen, None
        if len(losses) != len(x):
            raise ValueError(f"reinforce-neuron got {len(losses)} losses for an input of {len(x)} examples")
        loss = losses.detach().to(x.dtype).view(-1, *[1] * (x.ndim - 1))
        baseline = torch.where(self.weight > 0, self.weighted / self.weight, 0.0)
        push = gap * (loss - over_channels(baseline, x)) / len(losses)
        self._learn(gap.square(), loss)
        return (push * (x - x.detach())).sum()

    @torch.no_grad()
    def _learn(self, square: Tensor, loss: Tensor) -> None:
        channel = channel_dim(square) % square.ndim
        rest = [d for d in range(square.ndim) if d != channel or self.weight.ndim == 0]
        self.weighted.lerp_((square * loss).mean(rest).to(self.weighted.dtype), 1 - self.keep)
        self.weight.lerp_(square.mean(rest).to(self.weight.dtype), 1 - self.keep)
