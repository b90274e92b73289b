"""The mechanisms that are shipped as organisms, by name; each module tells what it plants and how it is forced."""

from interp.organisms.mechanisms.backup import BACKUP, BackupHeads
from interp.organisms.mechanisms.category import CATEGORY, CategoryHeads
from interp.organisms.mechanisms.confound import CONFOUND, ShiftHeads
from interp.organisms.mechanisms.decoy import DECOY, DecoyHeads
from interp.organisms.mechanisms.gate import GATE, GatedHeads
from interp.organisms.mechanisms.natural import NATURAL, FineTuning
from interp.organisms.mechanisms.spread import SPREAD, SpreadHeads
from interp.organisms.mechanisms.suppression import CLIFF, SuppressionHeads
from interp.organisms.mechanisms.tense import TENSE, TenseHeads
from interp.organisms.planting import Mechanism

MECHANISMS: tuple[Mechanism, ...] = (CLIFF, GATE, BACKUP, DECOY, SPREAD, CATEGORY, TENSE, NATURAL, CONFOUND)
"""In the order in which they are trained."""

__all__ = [
    "BACKUP",
    "CATEGORY",
    "CLIFF",
    "CONFOUND",
    "DECOY",
    "GATE",
    "MECHANISMS",
    "NATURAL",
    "SPREAD",
    "TENSE",
    "BackupHeads",
    "CategoryHeads",
    "DecoyHeads",
    "FineTuning",
    "GatedHeads",
    "ShiftHeads",
    "SpreadHeads",
    "SuppressionHeads",
    "TenseHeads",
]
