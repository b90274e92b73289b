"""Searches for the components that matter: attribution, ablation sweeps, interchange screening."""
