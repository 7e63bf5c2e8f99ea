import torch
from torch import Tensor, nn

from baselines.pde_method.balanced import BalancedTerms, flat_gradient
from suite import IntUniform, Paper, Uniform, pde_method


@pde_method(
    "lra",
    paper=Paper(
        "Understanding and mitigating gradient pathologies in physics-informed neural networks",
        arxiv="2001.04536",
        year=2021,
    ),
    defaults={"period": 10, "decay": 0.9},
    space={"period": IntUniform(5, 200), "decay": Uniform(0.5, 0.99)},
    families=("pde",),
)
class LearningRateAnnealing(BalancedTerms):
    """Condition weights max|grad L_residual| / mean|grad L_condition|; the residual's stays 1."""

    def rule(self, network: nn.Module, points: Tensor, terms: list[Tensor]) -> Tensor:
        parameters = self.parameters_of(network)
        residual, *conditions = [flat_gradient(term, parameters).abs() for term in terms]
        return torch.stack([torch.ones_like(terms[0]), *(residual.max() / g.mean() for g in conditions)])


@pde_method(
    "grad-norm-weights",
    paper=Paper("An Expert's Guide to Training Physics-informed Neural Networks", arxiv="2308.08468", year=2023),
    defaults={"period": 50, "decay": 0.9},
    space={"period": IntUniform(5, 1000), "decay": Uniform(0.5, 0.99)},
    families=("pde",),
)
class GradNormWeights(BalancedTerms):
    """Each term's weight is the sum of all terms' gradient norms over its own."""

    def rule(self, network: nn.Module, points: Tensor, terms: list[Tensor]) -> Tensor:
        parameters = self.parameters_of(network)
        norms = torch.stack([flat_gradient(term, parameters).norm() for term in terms])
        return norms.sum() / norms
