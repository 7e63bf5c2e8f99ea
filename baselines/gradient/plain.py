"""The bare optimizer step: the gradient of the loss, unchanged."""

from suite import gradient
from suite.train.step import Stepper

plain = gradient("plain")(Stepper)
