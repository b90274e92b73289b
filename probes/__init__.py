"""Linear refusal probes, sweeps over layers and positions, trajectories, and the cliff."""

from probes.cliff import Cliff, RolloutCliff
from probes.cliff_run import measure_cliff
from probes.examples import Examples
from probes.guard import LatentGuard, fit_guard
from probes.linear import LinearProbe
from probes.metrics import ProbeMetrics
from probes.model_sweep import fit_probe, sweep_model
from probes.sweep import ProbeSweep, SweepOptions, SweepPlan
from probes.trajectory import MeanTrajectory, Trajectory, score_tokens, score_trajectories

__all__ = [
    "Cliff",
    "Examples",
    "LatentGuard",
    "LinearProbe",
    "MeanTrajectory",
    "ProbeMetrics",
    "ProbeSweep",
    "RolloutCliff",
    "SweepOptions",
    "SweepPlan",
    "Trajectory",
    "fit_guard",
    "fit_probe",
    "measure_cliff",
    "score_tokens",
    "score_trajectories",
    "sweep_model",
]
