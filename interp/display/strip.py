"""A transcript's tokens as HTML: a row for each segment, every token coloured by its refusal score.

White space and special tokens show, and what would change how the rest is read, such as a right-to-left override, is
spelled out. Colours are styles of the tokens themselves; where styles are taken away, as on GitHub, what is left is a
table of the same tokens, with the mean score of each segment and the score of each close token in figures.
"""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from interp.display.palette import INK, SCORES, SEGMENT_COLORS, at, band, legible
from interp.display.text import visible

if TYPE_CHECKING:
    from interp.transcripts import Transcript

HEAD = 60
"""Tokens at the beginning of a long segment that are shown."""
TAIL = 90
"""Tokens at its end."""
_STEPS = 50
"""Shades of the scale."""


def strip(transcript: "Transcript", scores: Sequence[float] | None = None, edge: int | None = None) -> str:
    """The tokens, segment by segment; of long segments the beginning and the end.

    Args:
        transcript: What to show.
        scores: One for each token, in [0, 1]; without them tokens have the colour of their segment.
        edge: The index of the edge, which is named.
    """
    rows = []
    for segment, start, stop in transcript.stretches:
        note = f"{stop - start:,} token{'s' * (stop - start != 1)}"
        if scores is not None:
            note += f"<br>mean {sum(scores[start:stop]) / (stop - start):.2f}"
        tokens = _tokens(transcript, scores, segment, start, stop, edge)
        # Notebooks give all columns of a table the same width unless the first row says otherwise.
        head = f'<th scope="row" width="120" style="{_CELL}">{segment}<br><small>{note}</small></th>'
        rows.append(f'<tr>{head}<td style="{_CELL}; line-height: 1.7">{tokens}</td></tr>')
    look = "border-collapse: collapse; width: 100%; color: inherit"
    return f'<table style="{look}"><tbody>{"".join(rows)}</tbody></table>'


_CELL = "text-align: left; vertical-align: top; padding: 0.2rem 0.5rem; border-bottom: 1px solid #8886"


def _tokens(
    transcript: "Transcript", scores: Sequence[float] | None, segment: str, start: int, stop: int, edge: int | None
) -> str:
    places = list(range(start, stop))
    left_out = len(places) - HEAD - TAIL
    cut = ""
    if left_out > 0:
        cut = f" <i>… {left_out:,} tokens …</i> "
        places = places[:HEAD] + places[-TAIL:]
    made = []
    for number, place in enumerate(places):
        if cut and number == HEAD:
            made.append(cut)
        score = None if scores is None else scores[place]
        made.append(_token(transcript.tokens[place], place, score, segment, place == edge))
    return "".join(made)


def _token(text: str, place: int, score: float | None, segment: str, is_edge: bool) -> str:
    """One token in a frame of its own, which keeps the direction of what is written in it to itself."""
    if score is None:
        color = SEGMENT_COLORS[segment]
        style, title = f"background:{band(color, 0.12 if color == INK else 0.3)}", f"token {place}"
    else:
        shade = at(SCORES, round(score * _STEPS) / _STEPS)
        style, title = f"background:{shade};color:{legible(shade)}", f"token {place}: {score:.3f}"
    shown = f'<bdi style="{style};padding:1px;border-radius:2px" title="{title}">{escape(visible(text))}</bdi>'
    if score is not None and segment == "close":
        shown += f"<sub>{score:.2f}</sub>"
    if is_edge:
        shown = f"<b>{shown} ← edge</b>"
    # Tokens may stand on a new line each, as there is no white space between them; and do after a line break.
    return shown + ("<br>" if text.endswith("\n") and segment != "close" else "<wbr>")
