"""What all else stands on: hooked models, transcripts and positions, prompts, rollouts, judges, organisms.

Names are loaded on first use, so that `import interp` costs nothing and imports no heavy library.
"""
