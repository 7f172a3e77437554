"""Training on clusters: what a step takes on any cards, by any plan.

Takes a model (`shapes`), cards of one or several kinds (`fleet`), and a plan (`plan`); gives a `Step` (`prediction`):
time with range and parts, memory of each stage, what bounds it. `layers` says which operators a layer has, whose times
are those of `tapeout.models`; `collectives` what the network takes, `schedules` when every pass of a pipeline runs,
`memory` what a stage holds, `software` what the framework adds.
"""

from tapeout.models.step import ModelShape
from tapeout.training.fleet import Cards, Fleet, cards_of, fleet_of
from tapeout.training.plan import Mesh, Pipeline, Plan, uniform
from tapeout.training.prediction import Stage, Step, predict
from tapeout.training.problems import TrainingError
from tapeout.training.shapes import model_of
from tapeout.training.software import SoftwareEra

__all__ = [
    "Cards",
    "Fleet",
    "Mesh",
    "ModelShape",
    "Pipeline",
    "Plan",
    "SoftwareEra",
    "Stage",
    "Step",
    "TrainingError",
    "cards_of",
    "fleet_of",
    "model_of",
    "predict",
    "uniform",
]
