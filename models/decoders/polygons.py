"""Star-convex polygons: the area that two of them share, and the px that one covers.

A polygon is cut by horizontal lines. On each, its edges cross at an even number of places; between the first and
second, third and fourth, ... one is inside.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@njit(cache=True, nogil=True)
def directions(rays: int) -> tuple[Doubles, Doubles]:
    """Return (rays,) sines and cosines of even angles from 0."""
    angle = 2 * math.pi * np.arange(rays) / rays
    return np.sin(angle), np.cos(angle)


@njit(cache=True, nogil=True)
def areas(distance: Floats) -> Doubles:
    """Return (n,) areas of star polygons from their (n, rays) distances, at even angles."""
    rays = distance.shape[1]
    half = 0.5 * math.sin(2 * math.pi / rays)
    area = np.empty(len(distance))
    for k in range(len(distance)):
        total = 0.0
        for ray in range(rays):
            total += distance[k, ray] * distance[k, ray + 1 if ray + 1 < rays else 0]
        area[k] = half * total
    return area


@njit(cache=True, nogil=True)
def corners(y: float, x: float, distance: Floats, sine: Doubles, cosine: Doubles, corner: Doubles) -> None:
    """Write the (2, rays + 1) y and x of the corners of a star polygon, the first one again at the end."""
    rays = distance.size
    for ray in range(rays):
        corner[0, ray] = y + distance[ray] * sine[ray]
        corner[1, ray] = x + distance[ray] * cosine[ray]
    corner[0, rays], corner[1, rays] = corner[0, 0], corner[1, 0]


@njit(cache=True, nogil=True)
def cross(corner: Doubles, start: float, step: float, lines: int, crossing: Doubles, crossings: Ints) -> None:
    """Write where a polygon crosses the lines ``start + k * step``, in rising order.

    Parameters
    ----------
    corner
        (2, corners + 1) y and x.
    start, step, lines
        The lines.
    crossing, crossings
        (lines, corners) the places on each line, and (lines,) how many they are; both are written.
    """
    crossings[:lines] = 0
    share = 1 / step
    y1, x1 = corner[0, 0], corner[1, 0]
    place1 = (y1 - start) * share
    for k in range(1, corner.shape[1]):
        y0, x0, place0 = y1, x1, place1
        y1, x1 = corner[0, k], corner[1, k]
        place1 = (y1 - start) * share
        # A line through a corner crosses the edge that goes down from it, and not the one that ends there.
        first = max(math.ceil(min(place0, place1)), 0)
        last = min(math.ceil(max(place0, place1)), lines)
        if first >= last:
            continue
        slope = (x1 - x0) / (y1 - y0)
        for line in range(first, last):
            place = x0 + (start + line * step - y0) * slope
            at = crossings[line]
            while at > 0 and crossing[line, at - 1] > place:
                crossing[line, at] = crossing[line, at - 1]
                at -= 1
            crossing[line, at] = place
            crossings[line] += 1


@njit(cache=True, nogil=True)
def paint(image: Ints, corner: Doubles, value: int, crossing: Doubles, crossings: Ints) -> int:
    """Give a number to the px that are 0 and whose centres are inside a polygon; return how many they are.

    Parameters
    ----------
    image
        (y, x) int32.
    corner
        (2, corners + 1) y and x, in px.
    value
        The number.
    crossing, crossings
        Room for :func:`cross`, as many lines as the image has rows.
    """
    lowest, highest = corner[0].min(), corner[0].max()
    top, bottom = max(math.ceil(lowest), 0), min(math.floor(highest), image.shape[0] - 1)
    if top > bottom:
        return 0
    cross(corner, float(top), 1.0, bottom + 1 - top, crossing, crossings)
    painted = 0
    for line in range(bottom + 1 - top):
        row = image[top + line]
        for k in range(0, crossings[line], 2):
            left, right = (
                max(math.ceil(crossing[line, k]), 0),
                min(math.floor(crossing[line, k + 1]), row.size - 1),
            )
            for x in range(left, right + 1):
                if row[x] == 0:
                    row[x] = value
                    painted += 1
    return painted


@njit(cache=True, nogil=True)
def lens(distance: float, a: float, b: float) -> float:
    """Return the area that two circles share, from the distance of their centres and their radii."""
    if distance >= a + b:
        return 0.0
    if distance <= abs(a - b):
        return math.pi * min(a, b) ** 2
    d2, a2, b2 = distance * distance, a * a, b * b
    one = math.acos(min(max((d2 + a2 - b2) / (2 * distance * a), -1.0), 1.0))
    other = math.acos(min(max((d2 + b2 - a2) / (2 * distance * b), -1.0), 1.0))
    return a2 * (one - math.sin(2 * one) / 2) + b2 * (other - math.sin(2 * other) / 2)
