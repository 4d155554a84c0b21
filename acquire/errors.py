"""Every error that cytoloop raises, in one tree.

::

    CytoloopError
    ├── ConfigurationError      a key or value of an experiment file: names file, line, key, what is allowed
    ├── FrameError              an image that no room accepts (RGB, float, empty), named by what is wrong
    ├── SourceError             a recording that is broken, truncated or inconsistent: names path and frame
    ├── LinkError               between microscope and service
    │   ├── AddressError        an address that cannot be parsed, bound or is not allowed without keys
    │   ├── WireError           a message that failed its checks: names the field
    │   │   └── VersionError    a message of another version of the protocol: update the older side
    │   └── RefusedError        the service turned this client away, and says why
    ├── AcquisitionError        the acquisition engine failed, and would have kept silent about it
    │   └── EventError          an acquisition event that the engine mishandles, refused before it is submitted
    ├── ActuatorError           a command that the microscope could not carry out
    ├── CalibrationError        a calibration that cannot be measured or used: says what was seen
    ├── ExportError             a result that cannot be written: names path and reason
    ├── ModelError              a model file or package that cannot be used: names file and reason
    ├── PluginError             an unknown segmenter, tracker, rule, source or actuator
    └── MissingExtraError       an optional part that is not installed: names the extra that brings it
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class CytoloopError(Exception):
    """Base of every error that cytoloop raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in an experiment file.

    Attributes
    ----------
    file, line
        Where it stands; ``line`` is 1-based, 0 if the whole file is meant.
    key
        Dotted path of the key, such as ``streams.left.limits.x_um``.
    reason
        What is wrong and what is allowed.
    did_you_mean
        The nearest known name, or ``""``.
    """

    file: str
    line: int
    key: str
    reason: str
    did_you_mean: str = ""

    def __str__(self) -> str:
        hint = f" Did you mean {self.did_you_mean!r}?" if self.did_you_mean else ""
        return f"{self.file}:{self.line}: {self.key}: {self.reason}{hint}"


class ConfigurationError(CytoloopError):
    """An experiment file that cannot be run; ``problems`` holds all that was found, not only the first."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class FrameError(CytoloopError):
    """An image that no room accepts."""


class SourceError(CytoloopError):
    """A recording that cannot be read as it stands.

    Parameters
    ----------
    path
        The file or folder.
    reason
        What is wrong, and what is allowed.
    frame
        Index of the first frame that is wrong, or None when the whole recording is.
    """

    def __init__(self, path: str | Path, reason: str, frame: int | None = None) -> None:
        self.path, self.reason, self.frame = str(path), reason, frame
        where = f"{path}" if frame is None else f"{path}, frame {frame}"
        super().__init__(f"{where}: {reason}")


class LinkError(CytoloopError):
    """Something between the microscope and the service."""


class AddressError(LinkError):
    """An address that cannot be parsed or bound, or that is not allowed without keys."""


class WireError(LinkError):
    """A message that failed its checks; it is dropped and counted, never interpreted."""


class VersionError(WireError):
    """A message of another version of the protocol."""


class RefusedError(LinkError):
    """The service turned this client away, and says why."""


class AcquisitionError(CytoloopError):
    """The acquisition engine failed; pycro-manager 1.0.2 would have kept silent about it or hung."""


class EventError(AcquisitionError):
    """An acquisition event that the engine mishandles; refused before anything is submitted."""


class ActuatorError(CytoloopError):
    """A command that the microscope could not carry out."""


class CalibrationError(CytoloopError):
    """A map from px to um, or to a light device, that cannot be measured, read or trusted."""


class ExportError(CytoloopError):
    """A result that cannot be written; what was there before is still there.

    Parameters
    ----------
    path
        The file or folder.
    reason
        What is wrong, and what is allowed.
    begun
        Whether writing had begun (a full disk); else it was refused before.
    """

    def __init__(self, path: str | Path, reason: str, *, begun: bool = False) -> None:
        self.path, self.reason, self.begun = str(path), reason, begun
        super().__init__(f"{path}: {reason}")


class ModelError(CytoloopError):
    """A model file or package that is broken, unsafe, of another kind, or that its runtime cannot run."""


class PluginError(CytoloopError):
    """An unknown segmenter, tracker, rule, source or actuator, or options that it does not take."""


class MissingExtraError(CytoloopError):
    """An optional part that is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} is not installed; install it with: python -m pip install 'cytoloop[{extra}]'"
        )


def nearest_name(name: str, known: Iterable[str]) -> str:
    """Return the known name nearest to a mistyped one, or ``""`` if none is near."""
    matches = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else ""
