"""GELU, x Φ(x): exact with the error function (`gelu`), or by its tanh approximation (`gelu-tanh`)."""

from torch import nn

from suite import Paper, activation

GELU_PAPER = Paper("Gaussian Error Linear Units (GELUs)", arxiv="1606.08415", year=2016)

gelu = activation("gelu", paper=GELU_PAPER, defaults={"approximate": "none"}, families=("vision", "language", "pde"))(
    nn.GELU
)

gelu_tanh = activation(
    "gelu-tanh",
    paper=GELU_PAPER,
    system="gelu",
    defaults={"approximate": "tanh"},
    families=("vision", "language", "pde"),
)(nn.GELU)
