"""A picture as the bytes of a PNG with a palette: a third of the size that a file without one has.

Drawings have few colours and, along the edges of lines and letters, many mixtures that fill a few pixels each. The
commonest stay as they are; then those that would be farthest from any that is kept, weighed by how often they come.
Each of the others becomes the nearest of the 256.
"""

import struct
import zlib

import numpy as np
from jaxtyping import UInt8

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLORS = 256
_COMMONEST = 160


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
    """The colours that are kept, and for each pixel the number of its own or the nearest."""
    colors, inverse, counts = np.unique(pixels, return_inverse=True, return_counts=True)
    seen = _weighted(colors)
    kept = list(np.argsort(-counts, kind="stable")[:_COMMONEST])
    nearest, distance = np.zeros(len(colors), dtype=np.uint8), np.full(len(colors), np.inf, dtype=np.float32)
    for number in range(min(_COLORS, len(colors))):
        if number == len(kept):
            kept.append(int(np.argmax(distance * counts)))
        there = ((seen - seen[kept[number]]) ** 2).sum(1)
        closer = there < distance
        nearest[closer], distance[closer] = number, there[closer]
    return colors[kept[:_COLORS]], nearest[inverse]


def _weighted(colors: np.ndarray) -> np.ndarray:
    """Red, green and blue by opacity, and the opacity."""
    channels = colors.view(np.uint8).reshape(-1, 4).astype(np.float32)
    return np.concatenate([channels[:, :3] * channels[:, 3:] / 255, channels[:, 3:]], axis=1)


def _chunk(kind: bytes, content: bytes) -> bytes:
    checked = kind + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))
