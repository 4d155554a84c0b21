"""Kernels for rods: pushing capsules apart, growing colonies of them, and drawing them.

Rods are rows of float64; the columns of each kind of row are named below.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

Rows = NDArray[np.float64]
Indices = NDArray[np.int32]

X, Y, ANGLE, LENGTH, DIVIDE_AT = range(5)
"""Columns of a rod while it is placed: centre and length from pole to pole in px, direction in rad, and the
length at which it divides."""
PLACED = 5
WIDTH, BEND, TAPER, WAIST, SEPTUM, POLE, DENSITY, BANDS, BAND_PX, PHASE, TOTAL = range(5, 16)
"""Columns that follow when it is drawn: full width in px; turn of the axis from pole to pole in rad; how much
thinner one pole is than the other, as a fraction; how far the septum has closed, 0 to 1, and how wide that
constriction is in half widths; length of a pole in half widths; optical density; amplitude, distance in px and
phase of bands along the axis; none is ``TOTAL``."""


@njit(cache=True, nogil=True)
def push_apart(rods: Rows, n: int, width: float, sweeps: int) -> float:
    """Move and turn the first n rods until none overlap, at most ``sweeps`` times; return what overlap is left, in px.

    Rigid bodies under position-based dynamics on the closest points of their axes (Mueller et al. 2007).
    """
    first, second = _neighbours(rods, n, width)
    deepest = 0.0
    for _ in range(sweeps):
        deepest = 0.0
        for k in range(len(first)):
            deepest = max(deepest, _part(rods, first[k], second[k], width))
        if deepest < 0.01 * width:
            break
    return deepest


@njit(cache=True, nogil=True)
def grow(
    rods: Rows,
    n: int,
    target: int,
    width: float,
    added: float,
    fold: float,
    kick: float,
    pull: float,
    gap: float,
    rng: np.random.Generator,
) -> int:
    """Let n rods grow, divide and push each other until there are ``target``; return how many there are.

    ``rods`` has room for ``target``. A share ``fold`` of the daughters slides beside its sister, the others turn
    by about ``kick`` rad; ``pull`` draws all towards their middle in each step, as a fraction of the distance.
    Rods keep ``gap`` px apart.
    """
    apart = width + gap
    while n < target:
        for i in range(n):
            rods[i, LENGTH] *= 1.07 + 0.05 * rng.random()
            rods[i, ANGLE] += 0.02 * rng.normal()
        living = n
        for i in range(living):
            if rods[i, LENGTH] >= rods[i, DIVIDE_AT] and n < target:
                _divide(rods, i, n, width, added, fold, kick, rng)
                n += 1
        _draw_together(rods, n, pull)
        push_apart(rods, n, apart, 6)
    for _ in range(10):  # a large colony is under pressure
        if push_apart(rods, n, apart, 20) < 0.1 * width:
            break
        _draw_together(rods, n, -0.015)
    return n


@njit(cache=True, nogil=True)
def _divide(
    rods: Rows,
    i: int,
    new: int,
    width: float,
    added: float,
    fold: float,
    kick: float,
    rng: np.random.Generator,
) -> None:
    length, angle = rods[i, LENGTH], rods[i, ANGLE]
    share = 0.5 + 0.04 * rng.normal()
    ux, uy = math.cos(angle), math.sin(angle)
    x, y = rods[i, X], rods[i, Y]
    for row, part, sign in ((i, share, -1.0), (new, 1 - share, 1.0)):
        rods[row, LENGTH] = max(length * part, 1.1 * width)
        rods[row, X] = x + sign * ux * length * (1 - part) / 2
        rods[row, Y] = y + sign * uy * length * (1 - part) / 2
        rods[row, ANGLE] = angle + kick * rng.normal()
        rods[row, DIVIDE_AT] = rods[row, LENGTH] + added * width * min(max(1 + 0.2 * rng.normal(), 0.5), 1.6)
    if rng.random() < fold:
        side = width if rng.random() < 0.5 else -width
        back = length * (0.05 + 0.4 * rng.random())
        rods[new, X] += -ux * back - uy * side
        rods[new, Y] += -uy * back + ux * side


@njit(cache=True, nogil=True)
def _draw_together(rods: Rows, n: int, pull: float) -> None:
    x, y = 0.0, 0.0
    for i in range(n):
        x += rods[i, X] / n
        y += rods[i, Y] / n
    for i in range(n):
        rods[i, X] += pull * (x - rods[i, X])
        rods[i, Y] += pull * (y - rods[i, Y])


@njit(cache=True, nogil=True)
def _neighbours(rods: Rows, n: int, width: float) -> tuple[Indices, Indices]:
    """Return the pairs whose enclosing circles nearly touch."""
    first, second = np.empty(16 * n + 16, np.int32), np.empty(16 * n + 16, np.int32)
    k = 0
    for i in range(n):
        for j in range(i + 1, n):
            reach = (rods[i, LENGTH] + rods[j, LENGTH]) / 2 + 0.5 * width
            dx, dy = rods[j, X] - rods[i, X], rods[j, Y] - rods[i, Y]
            if dx * dx + dy * dy < reach * reach and k < len(first):
                first[k], second[k] = i, j
                k += 1
    return first[:k], second[:k]


@njit(cache=True, nogil=True)
def _part(rods: Rows, i: int, j: int, width: float) -> float:
    """Part one pair by its overlap, which is returned."""
    ha, hb = max(rods[i, LENGTH] - width, 0.0) / 2, max(rods[j, LENGTH] - width, 0.0) / 2
    ax, ay = math.cos(rods[i, ANGLE]), math.sin(rods[i, ANGLE])
    bx, by = math.cos(rods[j, ANGLE]), math.sin(rods[j, ANGLE])
    rx, ry = rods[i, X] - rods[j, X], rods[i, Y] - rods[j, Y]
    b, c, f = ax * bx + ay * by, ax * rx + ay * ry, bx * rx + by * ry
    across = 1 - b * b
    # closest points of two segments (Ericson, Real-Time Collision Detection, 5.1.9); nearly parallel ones touch
    # along their sides, and the middle of that is taken
    s = (b * f - c) / across if across > 1e-3 else -c / 2
    s = min(max(s, -ha), ha)
    t = min(max(b * s + f, -hb), hb)
    s = min(max(b * t - c, -ha), ha)
    nx, ny = bx * t - rx - ax * s, by * t - ry - ay * s
    distance = math.sqrt(nx * nx + ny * ny)
    overlap = width - distance
    if overlap <= 0:
        return 0.0
    if distance < 1e-6:  # crossed axes have no shortest connection: push the centres apart
        nx, ny = -rx + 1e-6, -ry + 1e-6
        distance = math.sqrt(nx * nx + ny * ny)
    nx, ny = nx / distance, ny / distance
    ia, ib = (2 * ha + width) ** 2 / 12, (2 * hb + width) ** 2 / 12
    ta, tb = s * (ax * ny - ay * nx), t * (bx * ny - by * nx)
    push = overlap / (2 + ta * ta / ia + tb * tb / ib)
    rods[i, X] -= nx * push
    rods[i, Y] -= ny * push
    rods[j, X] += nx * push
    rods[j, Y] += ny * push
    rods[i, ANGLE] -= push * ta / ia
    rods[j, ANGLE] += push * tb / ib
    return overlap


@njit(cache=True, nogil=True)
def paint(
    rods: Rows,
    power: float,
    stacked: float,
    margin: float,
    depth: NDArray[np.float32],
    distance: NDArray[np.float32],
    owner: NDArray[np.int32],
) -> None:
    """Draw rods into three images of one shape.

    ``depth`` becomes the optical depth: the density times ``(1 - (distance from axis / radius)^2)^power``. Where
    rods overlap it is that of the denser one, as if they pressed on each other, and a share ``stacked`` of that of
    the other, as if it lay on top.
    ``distance`` (px, negative inside) becomes that to the nearest outline, up to ``margin``, and ``owner`` the row +
    1 of that rod.
    """
    height, width = depth.shape
    for i in range(len(rods)):
        half, radius = rods[i, LENGTH] / 2, rods[i, WIDTH] / 2
        c, s = math.cos(rods[i, ANGLE]), math.sin(rods[i, ANGLE])
        curvature = rods[i, BEND] / rods[i, LENGTH]
        sag = curvature * half * half / 2
        wide = radius + abs(sag) + margin
        reach_x = abs(c) * (half + margin) + abs(s) * wide
        reach_y = abs(s) * (half + margin) + abs(c) * wide
        for y in range(max(0, int(rods[i, Y] - reach_y)), min(height, int(rods[i, Y] + reach_y) + 2)):
            for x in range(max(0, int(rods[i, X] - reach_x)), min(width, int(rods[i, X] + reach_x) + 2)):
                dx, dy = x - rods[i, X], y - rods[i, Y]
                u = c * dx + s * dy
                if abs(u) > half + margin:
                    continue
                v = c * dy - s * dx - curvature * u * u / 2 + sag / 3
                if abs(v) > radius + margin:
                    continue
                septum = u / (rods[i, SEPTUM] * radius)
                r = radius * (1 - rods[i, WAIST] * math.exp(-septum * septum))
                r *= 1 - rods[i, TAPER] * (0.5 + 0.5 * u / half)
                beyond = (abs(u) - (half - rods[i, POLE] * r)) / rods[i, POLE]
                d = (math.sqrt(beyond * beyond + v * v) if beyond > 0 else abs(v)) - r
                if d < 0:
                    rho = 1 + d / r
                    dense = rods[i, DENSITY] * (1 - rho * rho) ** power
                    if rods[i, BANDS] > 0:
                        dense *= 1 + rods[i, BANDS] * math.cos(6.2832 * u / rods[i, BAND_PX] + rods[i, PHASE])
                    depth[y, x] = max(depth[y, x], dense) + stacked * min(depth[y, x], dense)
                if d < distance[y, x]:
                    distance[y, x] = d
                    owner[y, x] = i + 1
