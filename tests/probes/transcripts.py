"""Transcripts made by hand, for tests of trajectories and cliffs that need no tokenizer."""

from collections.abc import Sequence

from interp.transcripts import Transcript


def transcript(id: str, n_thinking: int, n_close: int = 4, n_response: int = 3) -> Transcript:
    """Two prompt tokens, thinking, close tokens and a response, with ids that differ by transcript."""
    labels = ["instruction", "template", *["thinking"] * n_thinking, *["close"] * n_close, *["response"] * n_response]
    close: Sequence[str] = ("\n", "</think>", "\n", "\n")
    tokens = [
        "hello",
        "<think>\n",
        *(f"t{i}" for i in range(n_thinking)),
        *close[len(close) - n_close :],
        *["r"] * n_response,
    ]
    state = "closed" if n_thinking and n_close else "empty" if n_close else "unclosed"
    return Transcript(id, tuple(range(len(labels))), tuple(tokens), tuple(labels), 2, state)
