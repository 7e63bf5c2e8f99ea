from torch import Tensor

from suite import offline_objective
from suite.train.objective import Rollouts
from suite.train.offline import Imitation, right


@offline_objective("sft", families=("rlvr",), confidence="known")
class SFT(Imitation):
    """Supervised fine-tuning on the right traces: mean token loss over all of them, each as often as it was drawn."""

    def chosen(self, batch: Rollouts) -> Tensor:
        return right(batch)
