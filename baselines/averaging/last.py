"""No averaging: evaluation uses the last iterate."""

from suite import averaging
from suite.train.average import Averager

last = averaging("last")(Averager)
