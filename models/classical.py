"""Classical segmenter: background, local threshold, distance watershed. No weights, numpy and scipy only.

Honest about what it is: good on fluorescent nuclei and on dark rods, a stopgap on everything else.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..acquire.frame import Frame
from .labels import Labels

SG = 0.05
Image = NDArray[np.float32]


class ClassicalSegmenter:
    """Finds cells that are brighter, or darker, than their surroundings."""

    def __init__(
        self,
        *,
        channel: int = 0,
        polarity: Literal["bright", "dark", "auto"] = "auto",
        diameter_px: float | None = None,
        sensitivity: float = 0.5,
    ) -> None:
        self.channel = channel
        self._sign = {"bright": 1, "dark": -1, "auto": 0}[polarity]
        self._diameter = diameter_px
        self._sensitivity = sensitivity
        self._t = 0.78
        self._k = 4.0

    def segment(self, frame):
        pixels = frame.channel(self.channel)
        if self._sign == 0:
            self._sign = guess(pixels)
        if self._diameter is None:
            d = float(np.clip(0.05 * min(pixels.shape), 10, 50))
            for _ in range(2):
                im, w = self._segment(pixels, d)
                if w is None: break
                d = w
            if w is None:
                return Labels(np.zeros(pixels.shape, np.int32), 0)
            self._diameter = d
        im, _ = self._segment(pixels, self._diameter)
        return Labels(im, int(im.max()))

    def _segment(self, pixels, diameter):
        r = 1 if diameter < 24 else 2 if diameter < 72 else 3
        g = shrink(pixels.astype(np.float32), r)
        dia = diameter / r
        g = ndimage.gaussian_filter(g, min(1.0, SG * dia), truncate=3)
        d, sigma = subtract_background(g, dia) if self._sign > 0 else darkness(g, dia)
        low = KK * sigma
        m = d > low
        level = local_level(d, m, dia)
        mask = m & (d > self._sensitivity * level)
        mask = fill(mask, 0.25 * dia * dia)
        cut = VC_B if self._sign > 0 else VC_D
        if cut:
            v = valley(d, dia)
            core = fill(mask & (v < cut * level), 0.02 * dia * dia)
            lab, peaks = split(core, dia, self._t)
            lab = regrow(lab, mask, dia)
        else:
            lab, peaks = split(mask, dia, self._t)
        if len(peaks) == 0:
            return np.zeros(pixels.shape, np.int32), None
        for _ in range(int(IT)):
            lab = refine(lab, d, len(peaks))
        area = np.bincount(lab.ravel(), minlength=len(peaks) + 1)[1:]
        ok = area >= max(12, MINA * dia * dia)
        lev = np.bincount(lab.ravel(), d.ravel(), len(peaks) + 1)[1:] / np.maximum(area, 1)
        ok &= np.minimum(np.pi * peaks**2 / np.maximum(area, 1), 1) * np.minimum(4, lev / sigma / SN) > Q
        if self._sign < 0 and ok.any():
            ok &= lev >= REL * np.average(lev[ok], weights=(area * lev)[ok])
        if FEAT is not None:
            n = len(peaks)
            lev = np.bincount(lab.ravel(), d.ravel(), n + 1)[1:] / np.maximum(area, 1)
            hi = np.bincount(lab.ravel(), (d*d).ravel(), n + 1)[1:] / np.maximum(area * lev, 1e-6)
            gr = ndimage.gaussian_gradient_magnitude(d, 0.7)
            rim = (lab != ndimage.minimum_filter(lab, 3)) & (lab > 0)
            rb = np.bincount(lab[rim], gr[rim], n + 1)[1:] / np.maximum(np.bincount(lab[rim], minlength=n + 1)[1:], 1)
            FEAT.append((np.stack([area / (dia*dia), lev / sigma, lev / np.median(lev), np.pi * peaks ** 2 / np.maximum(area,1), rb / lev * min(dia,30) , hi/lev, rb/sigma], 1)[ok]))
        if not ok.any():
            return np.zeros(pixels.shape, np.int32), None
        lut = np.zeros(len(peaks) + 1, np.int32)
        lut[1:][ok] = np.arange(1, ok.sum() + 1)
        lab = lut[lab]
        order = np.argsort(peaks[ok]); cum = np.cumsum((area * lev)[ok][order])
        width = 2 * r * float(peaks[ok][order][np.searchsorted(cum, cum[-1] / 2)])
        return grow(lab, r, pixels.shape), width


def shrink(a, r):
    if r == 1: return a
    h, w = a.shape
    a = np.pad(a, ((0, -h % r), (0, -w % r)), mode="edge") if h % r or w % r else a
    out = a[::r, ::r].copy()
    for y in range(r):
        for x in range(r):
            if y or x: out += a[y::r, x::r]
    return out / (r * r)


def grow(lab, r, shape):
    if r == 1: return lab
    return np.ascontiguousarray(np.repeat(np.repeat(lab, r, 0), r, 1)[: shape[0], : shape[1]])


def upsample(c, f, shape):
    """Bilinear from block means of size f."""
    def axis(n, k):
        x = np.clip((np.arange(n) + 0.5) / f - 0.5, 0, k - 1)
        i = np.minimum(x.astype(np.int64), max(k - 2, 0))
        return i, np.minimum(i + 1, k - 1), (x - i).astype(np.float32)
    i, j, t = axis(shape[0], c.shape[0])
    a = c[i] * (1 - t)[:, None] + c[j] * t[:, None]
    i, j, t = axis(shape[1], c.shape[1])
    return a[:, i] * (1 - t) + a[:, j] * t


def subtract_background(g, dia):
    f = max(2, int(dia / 5))
    c = shrink(g, f)
    n = int(np.clip(4 * dia / f, 9, 41)) | 1
    step = 1
    b = ndimage.median_filter(c[::2, ::2], (n + 1) // 2, mode="nearest")
    b = upsample(b, 2, c.shape).astype(np.float32)
    for _ in range(3):
        res = c - b
        lo = res[res < 0]
        s = 1.4826 * np.median(-lo) if len(lo) else 0.0
        bg = (np.abs(res) < 3 * s + 1e-6).astype(np.float32)
        sg = 1.5 * dia / f
        wgt = ndimage.gaussian_filter(bg, sg, mode="nearest", truncate=3)
        val = ndimage.gaussian_filter(bg * c, sg, mode="nearest", truncate=3)
        b = np.where(wgt > 0.05, val / np.maximum(wgt, 1e-6), b)
    d = g - upsample(b, f, g.shape)
    sub = d[::2, ::2]
    lo = sub[sub < 0]
    sigma = 1.4826 * float(np.median(-lo)) if len(lo) else 0.0
    return d.astype(np.float32), max(sigma, 0.25)


FEAT = None
REL = 0.5
MINA, Q, SN, KK = 0.12, 0.2, 10, 4.
P = 0.0
LS = 0.35
IT = 0
CL = 1.5
OWN = 0.5
def refine(lab, d, n):
    p = np.flatnonzero(lab)
    l, v = lab.ravel()[p], d.ravel()[p]
    area = np.bincount(l, minlength=n + 1)
    lev = np.bincount(l, v, n + 1) / np.maximum(area, 1)
    for _ in range(2):
        lev = np.bincount(l, np.minimum(v, CL * lev[l]), n + 1) / np.maximum(area, 1)
    bad = v < OWN * lev[l]
    lab = lab.copy()
    lab.ravel()[p[bad]] = 0
    return lab


CW = 4
VC_B, VC_D, VS = 0, 0.05, 0.08
def valley(d, dia):
    s = float(np.clip(VS * dia, 1.0, 4.0))
    g = ndimage.gaussian_filter(d, s, truncate=2.5)
    p = np.pad(g, 1, mode="edge")
    yy = p[2:, 1:-1] + p[:-2, 1:-1] - 2 * g
    xx = p[1:-1, 2:] + p[1:-1, :-2] - 2 * g
    yx = (p[2:, 2:] + p[:-2, :-2] - p[2:, :-2] - p[:-2, 2:]) / 4
    return s * s * ((yy + xx) / 2 + np.hypot((yy - xx) / 2, yx))


def regrow(lab, mask, dia):
    for _ in range(int(max(2, 0.15 * dia))):
        free = mask & (lab == 0)
        if not free.any(): break
        big = ndimage.maximum_filter(lab, footprint=np.array([[0,1,0],[1,1,1],[0,1,0]]))
        lab = np.where(free, big, lab)
    return lab


def darkness(g, dia):
    f = max(1, int(dia / 5))
    c = shrink(g, f)
    n = max(3, int(CW * dia / f)) | 1
    top = ndimage.grey_closing(c, (n, n), mode="nearest")
    top = ndimage.uniform_filter(top, n // 2 | 1, mode="nearest")
    d = upsample(top, f, g.shape) - g
    sub = d[::3, ::3]
    base = np.median(sub)
    lo = base - sub[sub < base]
    return d - base, max(1.4826 * float(np.median(lo)), 0.25)


def local_level(d, m, dia):
    f = max(1, int(dia / 6))
    pos = np.where(m, d, 0)
    w = shrink(np.sqrt(pos) if P == 0.5 else pos ** P if P else m.astype(np.float32), f)
    v = shrink(pos * np.sqrt(pos) if P == 0.5 else pos ** (P + 1), f)
    s = LS * dia / f
    w, v = (ndimage.gaussian_filter(x, s, truncate=2.5) for x in (w, v))
    lev = v / np.maximum(w, 1e-3)
    return upsample(lev, f, d.shape)


def fill(mask, largest):
    lab, n = ndimage.label(~mask)
    if n == 0: return mask
    area = np.bincount(lab.ravel(), minlength=n + 1)
    small = area <= largest
    small[0] = False
    edge = np.concatenate([lab[0], lab[-1], lab[:, 0], lab[:, -1]])
    small[edge] = False
    return mask | small[lab]


def split(mask, dia, t):
    h, w = mask.shape
    D = np.zeros((h + 2, w + 2), np.float32)
    pm = np.zeros((h + 2, w + 2), bool); pm[1:-1, 1:-1] = mask
    # edges of the image are no edges of cells
    D = ndimage.distance_transform_edt(np.pad(mask, 1, mode="edge")).astype(np.float32)
    L = ndimage.gaussian_filter(D, max(0.6, 0.04 * dia), truncate=3)
    L[~pm] = -1
    W = w + 2
    p = np.flatnonzero(pm)
    if len(p) == 0: return np.zeros(mask.shape, np.int32), np.empty(0)
    Lf = L.ravel()
    up = p.copy(); best = Lf[p]
    for o in (-W - 1, -W, -W + 1, -1, 1, W - 1, W, W + 1):
        v = Lf[p + o]
        k = v > best
        up = np.where(k, p + o, up); best = np.where(k, v, best)
    local = np.zeros(L.size, np.int32); local[p] = np.arange(len(p))
    up = local[up]
    while True:
        nxt = up[up]
        if np.array_equal(nxt, up): break
        up = nxt
    peak, basin = np.unique(up, return_inverse=True)
    height = Lf[p[peak]]
    n = len(peak)
    # saddles
    flat = np.full(L.size, -1, np.int32); flat[p] = basin
    A, B, S = [], [], []
    for o in (1, W - 1, W, W + 1):
        a, b = basin, flat[p + o]
        k = (b >= 0) & (a != b)
        A.append(np.minimum(a[k], b[k])); B.append(np.maximum(a[k], b[k])); S.append(np.minimum(Lf[p[k]], Lf[p[k] + o]))
    A, B, S = map(np.concatenate, (A, B, S))
    root = np.arange(n)
    if len(A):
        o = np.lexsort((-S, B, A)); A, B, S = A[o], B[o], S[o]
        k = np.r_[True, (A[1:] != A[:-1]) | (B[1:] != B[:-1])]; A, B, S = A[k], B[k], S[k]
        lowp = np.minimum(height[A], height[B])
        cand = (lowp - S) <= np.maximum((1 - t) * lowp, 0.75)
        A, B, S = A[cand], B[cand], S[cand]
        o = np.argsort(-S, kind="stable")
        r = root.tolist(); hh = height.tolist()
        def find(x):
            while r[x] != x:
                r[x] = r[r[x]]; x = r[x]
            return x
        for a, b, s in zip(A[o].tolist(), B[o].tolist(), S[o].tolist()):
            a, b = find(a), find(b)
            if a == b: continue
            if hh[a] < hh[b]: a, b = b, a
            if hh[b] - s <= max((1 - t) * hh[b], 0.75):
                r[b] = a
        root = np.array([find(x) for x in range(n)])
    used, label = np.unique(root, return_inverse=True)
    out = np.zeros(L.size, np.int32); out[p] = label[basin] + 1
    return out.reshape(L.shape)[1:-1, 1:-1], height[used]


def guess(pixels):
    g = ndimage.gaussian_filter(shrink(pixels.astype(np.float32), 2), 1)
    lo, b, hi = np.percentile(g, [0.2, 25, 99.8])
    return 1 if b - lo <= 0.2 * (hi - b) else -1
