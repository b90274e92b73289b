"""A Plotly figure as a PNG, drawn by matplotlib: each picture is defined once, and its static form follows.

    png(cliff.figure())

Drawn is what the figure says with traces, axes, shapes and annotations: scatter, bar and heatmap traces, their error
bars and fills, rectangles and lines, subplots, a legend. Buttons and sliders need a page that is alive; what they hide
stays hidden. Whatever else a figure holds is an error and no gap in the picture. Room for titles, ticks and legend is
made as they need it. There is no background. Equal figures give equal bytes.
"""

from interp.display.static.picture import png, size_of

__all__ = ["png", "size_of"]
