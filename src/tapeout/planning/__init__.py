"""Planning of training: the best plans for a model on cards of one or several kinds.

Takes a `Question` (model, fleet, batch, and settings that are given); gives `Planned`: plans best first with exact
times, how far from the perfect mix, what each kind adds. `emit` writes a plan for FlagScale, Megatron, torchtitan or as
a script of torch.distributed.
"""

from tapeout.planning.planner import Planned, Ranked, plan
from tapeout.planning.settings import Question

__all__ = ["Planned", "Question", "Ranked", "plan"]
