"""Steering: changes of whole activations along a direction, in a subspace, or by an optimal-transport map."""
