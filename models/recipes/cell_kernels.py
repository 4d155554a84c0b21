"""Kernels for nuclei and spread cells: outlines around a centre, pushed apart and drawn; and soft dots."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

Rows = NDArray[np.float64]
Plane = NDArray[np.float32]

X, Y, ANGLE, LONG, SHORT, BEND, LEVEL, DOME = range(8)
"""Columns of a cell: centre in px, direction of its long axis in rad, semi-axes in px, turn of its long axis from
end to end in rad, brightness, and how much of that is lost from the middle to the outline."""
TOTAL = 8
ANGLES = 128
"""Entries of an outline: the radius in semi-axes by angle, counted from the long axis."""
DOT_X, DOT_Y, DOT_RADIUS, DOT_HEIGHT = range(4)


@njit(cache=True, nogil=True)
def push_apart(xy: Rows, radius: Rows, sweeps: int) -> None:
    """Move discs until none overlap, at most ``sweeps`` times, one pair after the other."""
    n = len(xy)
    for _ in range(sweeps):
        touched = False
        for i in range(n):
            for j in range(i + 1, n):
                dx, dy = xy[j, 0] - xy[i, 0], xy[j, 1] - xy[i, 1]
                apart = radius[i] + radius[j]
                square = dx * dx + dy * dy
                if square >= apart * apart or square == 0:
                    continue
                touched = True
                distance = math.sqrt(square)
                push = 0.5 * (apart - distance) / distance
                xy[i, 0] -= dx * push
                xy[i, 1] -= dy * push
                xy[j, 0] += dx * push
                xy[j, 1] += dy * push
        if not touched:
            break


@njit(cache=True, nogil=True)
def paint(
    cells: Rows,
    outlines: Rows,
    margin: float,
    light: Plane,
    distance: Plane,
    owner: NDArray[np.int32],
    rim: Plane,
) -> None:
    """Draw cells into four images of one shape.

    ``light`` gains level times profile, with an edge 1 px wide; ``distance`` (px, negative inside) becomes
    that to the nearest outline, up to ``margin``; ``owner`` the row + 1 of that cell and ``rim`` how far out the px
    lies on its radius, 1 at the outline.
    """
    height, width = light.shape
    for i in range(len(cells)):
        a, b = cells[i, LONG], cells[i, SHORT]
        largest = outlines[i].max()
        sag = abs(cells[i, BEND]) * a * largest * largest / 4
        reach = max(a, b) * largest + sag + margin
        c, s = math.cos(cells[i, ANGLE]), math.sin(cells[i, ANGLE])
        for y in range(max(0, int(cells[i, Y] - reach)), min(height, int(cells[i, Y] + reach) + 2)):
            for x in range(max(0, int(cells[i, X] - reach)), min(width, int(cells[i, X] + reach) + 2)):
                dx, dy = x - cells[i, X], y - cells[i, Y]
                u, v = c * dx + s * dy, c * dy - s * dx
                if abs(u) > a * largest + margin or abs(v) > b * largest + sag + margin:
                    continue
                v -= cells[i, BEND] * (u * u / (4 * a) - a / 12)
                p, q = u / a, v / b
                rho = math.sqrt(p * p + q * q) + 1e-9
                at = math.atan2(q, p) * (ANGLES / (2 * math.pi)) % ANGLES
                k = int(at)
                part = at - k
                outline = outlines[i, k % ANGLES] * (1 - part) + outlines[i, (k + 1) % ANGLES] * part
                slope = (outlines[i, (k + 1) % ANGLES] - outlines[i, k % ANGLES]) * (ANGLES / (2 * math.pi))
                slope = slope / (rho * rho)
                gx, gy = (p / rho + slope * q) / a, (q / rho - slope * p) / b
                d = (rho - outline) / math.sqrt(gx * gx + gy * gy)
                if d > margin:
                    continue
                share = min(max(0.5 - d, 0.0), 1.0)
                inner = rho / outline
                if share > 0:
                    light[y, x] += share * cells[i, LEVEL] * (1 - cells[i, DOME] * min(inner * inner, 1.0))
                if d < distance[y, x]:
                    distance[y, x] = d
                    owner[y, x] = i + 1
                    rim[y, x] = inner


@njit(cache=True, nogil=True)
def dot(dots: Rows, sharp: float, image: Plane) -> None:
    """Add round dots, ``height * exp(-(distance / radius)^(2 sharp))``."""
    height, width = image.shape
    for i in range(len(dots)):
        r = dots[i, DOT_RADIUS]
        reach = 3 * r + 1
        for y in range(max(0, int(dots[i, DOT_Y] - reach)), min(height, int(dots[i, DOT_Y] + reach) + 2)):
            for x in range(max(0, int(dots[i, DOT_X] - reach)), min(width, int(dots[i, DOT_X] + reach) + 2)):
                square = ((x - dots[i, DOT_X]) ** 2 + (y - dots[i, DOT_Y]) ** 2) / (r * r)
                image[y, x] += dots[i, DOT_HEIGHT] * math.exp(-(square**sharp))


@njit(cache=True, nogil=True)
def placed_inside(
    cells: Rows, outlines: Rows, number: int, inner: float, outer: float, rng: np.random.Generator
) -> Rows:
    """Return (cells * number, 2) random places x, y, ``inner`` to ``outer`` of the way from a middle to its outline."""
    places = np.empty((len(cells) * number, 2))
    for k in range(len(places)):
        i = k // number
        turn = 2 * math.pi * rng.random()
        out = (
            math.sqrt(inner**2 + (outer**2 - inner**2) * rng.random())
            * outlines[i, int(turn * ANGLES / (2 * math.pi)) % ANGLES]
        )
        u, v = out * math.cos(turn) * cells[i, LONG], out * math.sin(turn) * cells[i, SHORT]
        v += cells[i, BEND] * (u * u / (4 * cells[i, LONG]) - cells[i, LONG] / 12)
        c, s = math.cos(cells[i, ANGLE]), math.sin(cells[i, ANGLE])
        places[k, 0] = cells[i, X] + c * u - s * v
        places[k, 1] = cells[i, Y] + s * u + c * v
    return places
