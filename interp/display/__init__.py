"""How things look: colours, figures, pages. One visual language for notebooks, terminals and the report.

| module | what it owns |
|---|---|
| `palette` | colours: of outcomes, segments, scores, and the ink that shows on light and dark |
| `layout`, `traces` | the look of every Plotly figure, and parts that several have |
| `static` | a Plotly figure as a PNG |
| `shown` | objects that show themselves in Jupyter and on a terminal |
| `strip` | a transcript's tokens, coloured by their scores |
| `text`, `tables`, `page` | texts made visible and harmless, tables, a page that opens from disk |

Every result that can be drawn has `figure()`, the interactive Plotly figure; `interp.display.static.png(figure)` is the
same picture as a file's bytes. What a notebook shows of an object is told in `interp.display.shown`.
"""

from interp.display.shown import live

__all__ = ["live"]
