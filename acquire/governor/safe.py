"""The safe state: what the microscope does when the service has gone silent."""

from __future__ import annotations

from typing import Annotated

import msgspec

Setting = Annotated[str, msgspec.Meta(pattern=r"^[^.=]+\.[^=]+=.*$", max_length=1024)]


class SafeState(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When the microscope falls to its safe state, and what that is beside lights and outputs off.

    Attributes
    ----------
    after_s
        Seconds without a sign of life of the service. Default None: ``hang_s`` of the stream, the longest that work on
        one frame may take.
    set
        Device properties that are set then, each ``"Device.Property=Value"``. Default none.
    """

    after_s: Annotated[float, msgspec.Meta(ge=0.5, le=3600)] | None = None
    set: Annotated[tuple[Setting, ...], msgspec.Meta(max_length=64)] = ()

    @property
    def settings(self) -> tuple[tuple[str, str, str], ...]:
        """(device, property, value) of each."""
        return tuple(_parts(each) for each in self.set)


def _parts(setting: str) -> tuple[str, str, str]:
    name, _, value = setting.partition("=")
    device, _, of_device = name.partition(".")
    return device.strip(), of_device.strip(), value.strip()
