"""Transcripts: rollouts as tokens with a segment each, named positions, chat templates and thinking tags."""

from interp.transcripts.transcript import Transcript, TranscriptBuilder

__all__ = ["Transcript", "TranscriptBuilder"]
