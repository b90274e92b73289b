"""Ranking training examples by cliff, export, and targeted repair."""
