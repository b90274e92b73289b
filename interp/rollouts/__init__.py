"""Rollouts and prompts: their files, and generating rollouts with a model or a server."""

from interp.rollouts.rollout import Rollout, read_rollouts, write_rollouts

__all__ = ["Rollout", "read_rollouts", "write_rollouts"]
