"""Linear refusal probes, sweeps over layers and positions, trajectories, and the cliff."""
