"""How broad the cells are, asked of a net that is right within its range only."""

from __future__ import annotations

import numpy as np
import pytest
from cytoloop.models.nets.scale import FINEST, estimate, scale_for

REFERENCE = 24.0
LOWEST, HIGHEST = 11.0, 42.0


def net(breadth_px: float, *, share: float = 0.3, fades: float = 0.0):
    """Answer as a net does for cells so broad: cut off at both ends of its range, less sure of coarse frames."""

    def ask(scale: float) -> np.ndarray:
        shown = breadth_px * scale
        maps = np.full((3, 128, 64), -6.0, np.float32)
        inside = slice(0, max(1, round(128 * share)))
        maps[0, inside] = 6.0 if shown > LOWEST else 6.0 - fades
        maps[1, inside] = 4.0
        maps[2, inside] = np.log2(np.clip(shown, LOWEST, HIGHEST) / REFERENCE)
        return maps

    return ask


@pytest.mark.parametrize("breadth_px", [7.0, 10.0, 16.0, 24.0, 35.0, 60.0, 100.0, 200.0])
def test_cells_of_any_breadth_are_measured_where_the_net_is_right(breadth_px: float):
    assert estimate(net(breadth_px), (1024, 1024), REFERENCE) == pytest.approx(breadth_px, rel=0.05)


@pytest.mark.parametrize("breadth_px", [10.0, 14.0, 24.0, 35.0, 60.0, 200.0])
def test_cells_are_shown_at_about_the_same_breadth(breadth_px: float):
    shown = breadth_px * scale_for(breadth_px, 30.0)
    assert (25.0 if breadth_px > 12 else 20.0) <= shown < 36.0


def test_no_frame_is_enlarged_more_than_twice():
    assert scale_for(3.0, 30.0) == FINEST


def test_small_changes_of_the_breadth_leave_the_scale_as_it_is():
    assert {scale_for(breadth_px, 32.0) for breadth_px in (20.0, 22.0, 24.0, 26.0)} == {2**0.5}


def test_a_few_specks_at_the_finest_scale_do_not_hide_the_cells():
    cells = net(80.0, share=0.6)

    def ask(scale: float) -> np.ndarray:
        return cells(scale) if scale < 1 else net(12.0, share=0.005)(scale)

    assert estimate(ask, (1024, 1024), REFERENCE) == pytest.approx(80.0, rel=0.05)


def test_nothing_is_told_of_a_frame_without_cells():
    assert estimate(lambda scale: np.full((3, 64, 64), -6.0, np.float32), (512, 512), REFERENCE) is None
