"""Checks of a tracker's state before another tracker takes it over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def check_state(state: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Refuse a state that is not of the same kind of tracker.

    Parameters
    ----------
    state
        What shall be taken over.
    own
        The state of the tracker that takes it: the same ``tracker``, the same names, and arrays with as many
        dimensions.

    Raises
    ------
    ValueError
        Says what differs.
    """
    kind = own["tracker"]
    if state.get("tracker") != kind:
        raise ValueError(f"the state is of the tracker {state.get('tracker')!r}, not of {kind!r}")
    if missing := sorted(own.keys() - state.keys()):
        raise ValueError(f"the state of {kind!r} lacks {', '.join(missing)}")
    for name, value in own.items():
        if isinstance(value, np.ndarray) and np.ndim(state[name]) != value.ndim:
            raise ValueError(f"the state of {kind!r} has {name} of shape {np.shape(state[name])}")
