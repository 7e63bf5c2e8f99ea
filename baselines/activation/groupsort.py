from torch import Tensor, nn

from baselines.activation.channels import from_groups, to_groups
from suite import Choice, Paper, activation


@activation(
    "groupsort",
    paper=Paper("Sorting out Lipschitz function approximation", arxiv="1811.05381", year=2018),
    defaults={"group": 2},
    space={"group": Choice(2, 4, 8)},
    families=("vision",),
)
class GroupSort(nn.Module):
    """GroupSort: neighbouring channels sorted in groups, ascending.

    Parameters
    ----------
    group : channels a group; the number of channels must be a multiple of it.
    """

    def __init__(self, group: int = 2) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        return from_groups(to_groups(x, self.group).sort(-1).values, x.ndim)
