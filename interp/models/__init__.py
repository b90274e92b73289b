"""Hooked models: where a model's parts live, reading and changing them, generating."""
