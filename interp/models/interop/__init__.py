"""The same weights in TransformerLens and nnsight, and interventions in both; see README.md beside this file."""
