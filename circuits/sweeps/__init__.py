"""The exact effect of changing each head alone, without recomputing what a head cannot change."""
