"""The microscope's side: frames out, commands back. Light to import: numpy, pyzmq, msgspec, tifffile.

For a script at the microscope: :func:`connect` for pycro-manager, :mod:`.pymmcoreplus` for pymmcore-plus,
:func:`open_source` for recordings.
"""

from .actuators import Actuator
from .commands import (
    Command,
    MoveFocus,
    MoveStage,
    Pause,
    SetExposure,
    SetProperty,
    Skip,
    SnapExtra,
    Stimulate,
    Stop,
    Trigger,
)
from .coordinates import Affine
from .errors import CytoloopError
from .frame import Frame
from .link.client import Client, ClientStats
from .micromanager.loop import Loop, connect
from .reply import Cells, Decision, Division, Reply
from .sources import Source, open_source

__all__ = [
    "Actuator",
    "Affine",
    "Cells",
    "Client",
    "ClientStats",
    "Command",
    "CytoloopError",
    "Decision",
    "Division",
    "Frame",
    "Loop",
    "MoveFocus",
    "MoveStage",
    "Pause",
    "Reply",
    "SetExposure",
    "SetProperty",
    "Skip",
    "SnapExtra",
    "Source",
    "Stimulate",
    "Stop",
    "Trigger",
    "connect",
    "open_source",
]
