"""Colour scales: from numbers to colours."""

from typing import Any

import numpy as np

from interp.display.static.reading import Json, color


def color_map(scale: Any) -> Any:
    """A colour scale as a function of numbers from 0 to 1."""
    from matplotlib.colors import LinearSegmentedColormap
    from plotly.colors import get_colorscale

    stops = get_colorscale(scale or "Viridis") if scale is None or isinstance(scale, str) else scale
    pairs = [(float(place), color(value)) for place, value in stops]
    return LinearSegmentedColormap.from_list("scale", pairs, N=256)


def limits(said: Json, data: np.ndarray, which: str) -> Any:
    """Numbers from 0 to 1 for values between the ends of a colour scale."""
    from matplotlib.colors import Normalize

    finite = data[np.isfinite(data)]
    low, high, middle = (said.get(f"{which}{end}") for end in ("min", "max", "mid"))
    low = float(finite.min() if len(finite) else 0) if low is None else float(low)
    high = float(finite.max() if len(finite) else 1) if high is None else float(high)
    if middle is not None:
        reach = max(high - middle, middle - low)
        low, high = middle - reach, middle + reach
    return Normalize(low, high if high > low else low + 1, clip=True)
