"""The microscope's side: frames out, commands back. Light to import: numpy, pyzmq, msgspec, tifffile.

For a script at the microscope: :func:`connect` for pycro-manager, :mod:`.pymmcoreplus` for pymmcore-plus,
:func:`open_source` for recordings.
"""

from .actuators import Actuator, CoreActuator
from .calls import CallActuator
from .commands import (
    Call,
    Command,
    Disarm,
    MoveFocus,
    MoveStage,
    Pause,
    Revisit,
    SetChannel,
    SetExposure,
    SetInterval,
    SetProperty,
    Skip,
    SnapExtra,
    Stimulate,
    Stop,
    Trigger,
    Webhook,
)
from .coordinates import Affine
from .errors import CytoloopError
from .frame import Frame
from .governor.limits import Limits
from .link.client import Client, ClientStats
from .micromanager.loop import Loop, connect
from .reply import Cells, Decision, Division, Reply
from .scheduled import ScheduledTrigger
from .sources import Source, open_source
from .webhook import WebhookActuator

__all__ = [
    "Actuator",
    "Affine",
    "Call",
    "CallActuator",
    "Cells",
    "Client",
    "ClientStats",
    "Command",
    "CoreActuator",
    "CytoloopError",
    "Decision",
    "Disarm",
    "Division",
    "Frame",
    "Limits",
    "Loop",
    "MoveFocus",
    "MoveStage",
    "Pause",
    "Reply",
    "Revisit",
    "ScheduledTrigger",
    "SetChannel",
    "SetExposure",
    "SetInterval",
    "SetProperty",
    "Skip",
    "SnapExtra",
    "Source",
    "Stimulate",
    "Stop",
    "Trigger",
    "Webhook",
    "WebhookActuator",
    "connect",
    "open_source",
]
