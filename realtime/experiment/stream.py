"""One stream of an experiment: what its frames go through, and what may be asked of its microscope."""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeAlias

import msgspec

from ...acquire.coordinates import Affine
from ...acquire.errors import ConfigurationError, Problem
from ...acquire.governor.limits import Limits
from ...acquire.governor.safe import SafeState
from ...acquire.link.addresses import DEFAULT_ADDRESS
from ..recording.settings import Record
from ..trust import Trust
from .channel_checks import check_channels
from .choice import PluginChoice
from .document import dotted

Matrix: TypeAlias = tuple[tuple[float, float], tuple[float, float]]
Positive = Annotated[float, msgspec.Meta(gt=0)]
ChannelName = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]

# A stream's name becomes a folder of the log on any operating system.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_RESERVED_ON_WINDOWS = re.compile(r"(?i)con|prn|aux|nul|com\d|lpt\d")


class RuleSet(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The rules of one file (:func:`~.rule_files.read_rules_file`), that run beside the armed ones with no effect.

    Attributes
    ----------
    name
        Under which its decisions are told: the file's name without ``.toml``.
    rules
        What decides, in this order.
    limits
        What its commands may ask for; None: as those of the stream.
    channels, classes
        What the file says of the frames that it is for: names of channels, and of classes of cells; None or empty
        if it does not say.
    """

    name: str
    rules: tuple[PluginChoice, ...] = ()
    limits: Limits | None = None
    channels: tuple[ChannelName, ...] = ()
    classes: tuple[str, ...] | None = None


class StreamConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One stream of frames and all that happens to it.

    Attributes
    ----------
    name
        The stream's name: letters, digits, ``_`` and ``-``. In the file it is the name of the table.
    address
        Where the service listens: ``tcp://HOST:PORT`` (port 0: the system chooses), ``ipc://PATH`` or
        ``inproc://NAME``; another one for each stream. Default ``tcp://127.0.0.1:5790``.
    policy
        ``"lossless"``: every frame is analysed, in order. ``"latest"``: one slot, only the newest waiting
        frame is analysed. Default ``"lossless"``.
    credit
        Frames that the client may have under way at once, 1 to 64. Default 3.
    channels
        Names of the channels that come as separate images and are joined into one frame for each time,
        position and z, in this order; images of others are acknowledged and left alone. Default none: frames
        are taken as they come.
    every
        Of these channels, those that are taken at every n-th time point only (0, n, 2 n, ...), each with its
        n; they stand last in ``channels``. Default none.
    channel
        Name of the channel to segment; the others are measured if they are in the same frame, else
        acknowledged and left alone. Default ``""``: the segmenter's own choice; of frames with one channel
        that are not joined, the channel of the first.
    keys
        Folder made by ``cytoloop keys``, needed for any address that is not loopback; relative to the
        experiment file. Default ``""``: none.
    save_masks
        Write the label image of every frame into the log. Default false.
    hang_s
        Seconds of work on one frame after which the engine process is taken for hung and is started again,
        0.1 to 3600. Default 10.
    start_s
        Seconds that an engine process may take to start and to load the segmenter, 1 to 86400. Default 180.
    pixel_size_um
        Edge of a pixel in the sample in um; goes before what frames say. Default none.
    affine
        Instead of ``pixel_size_um``, for a camera that is rotated or flipped: [[xx, xy], [yx, yy]], stage um
        per px, the row of x first. Default none.
    calibration
        File made by ``cytoloop calibrate``, relative to the experiment file; goes before ``affine`` and
        ``pixel_size_um``, and before what frames say. If it cannot be used, the stage is not moved. Default ``""``:
        none.
    calibration_days
        Age in days beyond which the calibration is not used. Default 90.
    objective
        Name of Micro-Manager's pixel size configuration in use; a calibration of another one is not used. Default
        ``""``: not compared.
    segmenter, tracker
        What finds and what links the cells. Default ``net`` and ``lap``.
    rules
        What decides, in this order. Default none.
    shadow
        Rules that run beside these with no effect; what they would have decided is in every reply and in the log.
        In the file: paths of rules files, relative to it. Default none.
    armed
        Whether decisions reach the hardware from the start; else from when a person arms the microscope. Default
        false.
    limits
        What commands may ask for.
    record
        What is recorded beside the journal.
    safe
        When the microscope falls to its safe state, and what is set then.
    trust
        What must hold for decisions to be trusted; else they are disarmed.
    """

    name: str = "default"
    address: str = DEFAULT_ADDRESS
    policy: Literal["lossless", "latest"] = "lossless"
    credit: Annotated[int, msgspec.Meta(ge=1, le=64)] = 3
    channels: Annotated[tuple[ChannelName, ...], msgspec.Meta(max_length=64)] = ()
    every: dict[str, Annotated[int, msgspec.Meta(ge=1)]] = {}
    channel: str = ""
    keys: str = ""
    save_masks: bool = False
    hang_s: Annotated[float, msgspec.Meta(ge=0.1, le=3600)] = 10.0
    start_s: Annotated[float, msgspec.Meta(ge=1, le=86_400)] = 180.0
    pixel_size_um: Positive | None = None
    affine: Matrix | None = None
    calibration: str = ""
    calibration_days: Annotated[float, msgspec.Meta(gt=0, le=36_525)] = 90.0
    objective: str = ""
    segmenter: PluginChoice = PluginChoice("net")
    tracker: PluginChoice = PluginChoice("lap")
    rules: tuple[PluginChoice, ...] = ()
    shadow: tuple[RuleSet, ...] = ()
    armed: bool = False
    limits: Limits = Limits()
    record: Record = Record()
    safe: SafeState = SafeState()
    trust: Trust = Trust()

    def __post_init__(self) -> None:
        problems: list[Problem] = []
        if not _NAME.fullmatch(self.name) or _RESERVED_ON_WINDOWS.fullmatch(self.name):
            allowed = "letters, digits, _ and -, at most 64, and no name that Windows reserves"
            problems.append(Problem("", 0, "", f"{self.name!r} cannot name a stream; allowed: {allowed}."))
        for wrong in check_channels(self.channels, self.every, self.channel, self.policy):
            problems.append(Problem("", 0, dotted(wrong.key), wrong.reason, wrong.did_you_mean))
        names = [each.name for each in self.shadow]
        if "" in names or len(set(names)) < len(names):
            problems.append(Problem("", 0, "shadow", "each needs a name of its own; its decisions go by it."))
        if self.affine is not None and self.pixel_size_um is not None:
            problems.append(Problem("", 0, "pixel_size_um", "give either pixel_size_um or affine, not both."))
        try:
            self.pixel_map(None)
        except ConfigurationError as error:
            problems.extend(error.problems)
        if problems:
            raise ConfigurationError(problems)

    def pixel_map(
        self,
        frame_pixel_size_um: float | None,
        frame_affine: tuple[float, float, float, float] | None = None,
        measured: Affine | None = None,
    ) -> Affine | None:
        """Return the pixel to stage map of a frame, or None.

        What was measured goes before the configuration, that before the frame's affine, that before its pixel size;
        :class:`~cytoloop.realtime.pixel_maps.PixelMaps` reads the measured one and says whether it may be used.
        """
        if measured is not None:
            return measured
        if self.affine is not None:
            (xx, xy), (yx, yy) = self.affine
            return Affine(xx, xy, yx, yy)
        if self.pixel_size_um is None and frame_affine is not None:
            return Affine(*frame_affine)
        size = self.pixel_size_um or frame_pixel_size_um or 0.0  # 0 is Micro-Manager's "not calibrated"
        return Affine.from_pixel_size(size) if size > 0 else None
