"""A picture as the bytes of a PNG with a palette: a third of the size that a file without one has.

Drawings have few colours and, along the edges of lines and letters, many mixtures that fill a few pixels each. The 256
commonest stay as they are, and each of the others becomes the nearest of these.
"""

import struct
import zlib

import numpy as np
from jaxtyping import UInt8

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLORS = 256


def encode(pixels: UInt8[np.ndarray, "height width 4"]) -> bytes:
    """The file of an RGBA picture; equal pictures give equal bytes."""
    height, width, _ = pixels.shape
    palette, indices = _palette(np.ascontiguousarray(pixels).view(np.uint32).reshape(-1))
    colors = palette.view(np.uint8).reshape(-1, 4)
    # Each row begins with the number of its filter: none, as neighbouring numbers of colours are not alike.
    rows = np.zeros((height, width + 1), dtype=np.uint8)
    rows[:, 1:] = indices.reshape(height, width)
    parts = [
        _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        _chunk(b"PLTE", colors[:, :3].tobytes()),
        _chunk(b"tRNS", colors[:, 3].tobytes()),
        _chunk(b"IDAT", zlib.compress(rows.tobytes(), 9)),
        _chunk(b"IEND", b""),
    ]
    return _SIGNATURE + b"".join(parts)


def _palette(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The commonest colours, and for each pixel the number of its own or the nearest."""
    colors, inverse, counts = np.unique(pixels, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_COLORS]
    kept = colors[order]
    # Colours as they look on a page: what is transparent differs little, whatever its hue.
    visible, kept_visible = _weighted(colors), _weighted(kept)
    nearest = np.empty(len(colors), dtype=np.uint8)
    for start in range(0, len(colors), 1024):
        part = visible[start : start + 1024]
        nearest[start : start + 1024] = ((part[:, None] - kept_visible[None]) ** 2).sum(-1).argmin(1)
    return kept, nearest[inverse]


def _weighted(colors: np.ndarray) -> np.ndarray:
    """Red, green and blue by opacity, and the opacity."""
    channels = colors.view(np.uint8).reshape(-1, 4).astype(np.float32)
    return np.concatenate([channels[:, :3] * channels[:, 3:] / 255, channels[:, 3:]], axis=1)


def _chunk(kind: bytes, content: bytes) -> bytes:
    checked = kind + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))
