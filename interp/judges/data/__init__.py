"""Data files of the package: phrase lists and refusal openings."""
