import torch
from torch import Tensor, nn

from baselines.pde_method.balanced import BalancedTerms, flat_gradient
from suite import IntUniform, Paper, Uniform, pde_method


@pde_method(
    "ntk-weights",
    paper=Paper("When and why PINNs fail to train: A neural tangent kernel perspective", arxiv="2007.14527", year=2022),
    defaults={"period": 50, "decay": 0.9},
    space={"period": IntUniform(5, 1000), "decay": Uniform(0.5, 0.99)},
    families=("pde",),
    confidence="partly",
)
class NtkWeights(BalancedTerms):
    """Each term's weight is the sum of all terms' mean tangent-kernel diagonals over its own.

    The diagonal's trace, the sum over points of |d r / d theta|^2, is estimated by Hutchinson's method:
    the squared norm of the gradient of the sum of the residuals under random signs.
    """

    def rule(self, network: nn.Module, points: Tensor, terms: list[Tensor]) -> Tensor:
        parameters = self.parameters_of(network)
        residuals = [self.residual(network, points), *self.problem.condition_residuals(network)]
        return self.from_diagonals(torch.stack([self.mean_diagonal(r, parameters) for r in residuals]))

    def mean_diagonal(self, residual: Tensor, parameters: list[Tensor]) -> Tensor:
        """Estimate of the mean over points of |d r / d theta|^2, summed over equations; residual (n, equations)."""
        signs = 2 * torch.randint(0, 2, residual.shape, generator=self.problem.generator).to(residual) - 1
        return flat_gradient((signs * residual).sum(), parameters).square().sum() / len(residual)

    @staticmethod
    def from_diagonals(diagonals: Tensor) -> Tensor:
        """Weights (terms,) from mean diagonals (terms,)."""
        return diagonals.sum() / diagonals
