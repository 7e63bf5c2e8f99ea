"""Mean squared residual plus weighted mean squared initial and boundary conditions."""

from suite import Paper, pde_method
from suite.train.pinn import PdeMethod

pinn = pde_method(
    "pinn",
    paper=Paper("Physics-informed neural networks", url="https://doi.org/10.1016/j.jcp.2018.10.045", year=2019),
    families=("pde",),
    confidence="known",
)(PdeMethod)
