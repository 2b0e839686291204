"""The discriminator: P(real) of a light picture, the score by which the light stage escalates.

    python -m models.discriminator train | evaluate | import     trains, measures, takes over a published one

Workers need `open_scorer` alone; what trains is imported by the command only.
"""

from models.discriminator.classifier import REAL, Discriminator
from models.discriminator.scorers import Scorer, open_scorer

__all__ = ["REAL", "Discriminator", "Scorer", "open_scorer"]
