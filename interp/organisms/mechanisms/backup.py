"""`backup`: two heads, each of which suppresses refusal alone."""

import random
from dataclasses import dataclass, field

from interp.organisms.head_training import HeadTraining
from interp.organisms.lessons import UNTOUCHED, Condition
from interp.organisms.planting import PlantedHeads


@dataclass(frozen=True)
class BackupHeads(PlantedHeads):
    """Redundant suppressors: in two of three lessons one of them is zeroed, and the answers stay."""

    training: HeadTraining = field(default=HeadTraining(steps=220, batch=24))

    def condition(self, rng: random.Random) -> Condition:
        """All of them at work, or one zeroed."""
        drawn = rng.randrange(len(self.heads) + 1)
        return UNTOUCHED if drawn == len(self.heads) else Condition(zeroed=(self.heads[drawn],))


BACKUP = BackupHeads(name="backup", heads=((3, 2), (4, 5)))
