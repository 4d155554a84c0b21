"""Choosing what computes a net: the fastest way that says what the reference says, and why.

A way is a runtime in a precision. The choice is kept per computer, libraries and weights, so that a start is fast
and the next one computes the same: a replay is the live run again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec

from ...acquire.errors import CytoloopError, ModelError
from ...acquire.plugins import build, find_class
from ..decoders.decoder import Grid
from ..packages.adapt import adapt
from ..packages.contents import ModelPackage
from ..parity import Agreement
from .cache import CacheDamagedError, cache_folder, key_of, read_cached, write_cached
from .drawn import drawn_frame
from .engines import silent
from .runtime import Precision, Runtime, Tensor
from .tensorrt_build import Report
from .trial import Decode, Reference, median_ms
from .ways import Net, Way, file_of, hash_of, identity, net_of, open_way, ways

NEAR = 1.1
"""Ways that take up to so many times as long as the fastest count as equally fast: the most exact is taken."""
_ONLY_COMPARED = "not asked for, only compared with"
_log = logging.getLogger(__name__)
_EXACTNESS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of one way.

    Attributes
    ----------
    runtime, precision, device
        The way.
    ms
        Median time of the net alone, in ms; None if it was not measured.
    agreement
        How far it agrees with the reference, in words.
    accepted
        Whether it may stand in for the reference.
    reason
        Why not; ``""`` if accepted.
    """

    runtime: str
    precision: Precision
    device: str
    ms: float | None
    agreement: str
    accepted: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """What computes a net, and why.

    Attributes
    ----------
    runtime, precision, device
        What was picked.
    reason
        Why, in one sentence.
    trials
        One for each way that was tried, the reference first; empty if there was nothing to choose.
    weights
        SHA-256 of the file that it runs, which may be converted.
    """

    runtime: str
    precision: Precision
    device: str
    reason: str
    trials: tuple[Trial, ...] = ()
    weights: str = ""


def build_runtime(
    model: ModelPackage | str | Path,
    *,
    runtime: str = "auto",
    precision: str = "auto",
    threads: int = 2,
    frames: Sequence[Tensor] | None = None,
    decode: Decode | None = None,
    report: Report = silent,
) -> tuple[Runtime, Choice]:
    """Return what computes a net, and why it was picked.

    Parameters
    ----------
    model
        A package, or an ONNX or TorchScript file.
    runtime
        A registered runtime, ``module:Class``, or ``"auto"`` for any that is installed.
    precision
        ``"fp32"``, ``"bf16"``, ``"fp16"``, ``"int8"``, or ``"auto"`` for any that agrees with fp32.
    threads
        Of the processor.
    frames
        Tensors (1, channels, y, x) as the net will see them, to calibrate and to judge on; they make the
        choice anew. None takes the choice that was kept, or judges on a drawn frame.
    decode
        Makes the instance mask of a frame's outputs, so that cells are compared and not numbers; None takes
        the package's decoder.
    report
        Told how far the work is.

    Raises
    ------
    ModelError
        If the file cannot be used, or nothing that was asked for can run it.
    MissingExtraError
        If what was asked for is not installed.
    PluginError
        If there is no such runtime.
    """
    net = net_of(model)
    asked = ways(net, runtime, precision)
    if len(asked) == 1:
        built = open_way(asked[0], net, threads, frames=frames, report=report)
        reason = "it was asked for" if runtime != "auto" else "there is no other"
        return built, _with_weights(Choice(*_names(asked[0]), built.device, reason), net)
    kept = None if frames else recall(net, runtime, precision, threads)
    if kept is not None:
        try:
            if kept == _with_weights(kept, net):
                return open_way(_way(kept), net, threads, report=report), kept
        except CytoloopError:
            pass  # what was chosen then is no longer there
    built, choice = _choose(net, asked, threads, frames, decode, report)
    remember(net, runtime, precision, threads, choice)
    return built, choice


def _names(way: Way) -> tuple[str, Precision]:
    return way.runtime, way.precision


def _way(of: Choice | Trial) -> Way:
    return Way(of.runtime, of.precision)


def _with_weights(choice: Choice, net: Net) -> Choice:
    """Return a choice with what tells the weights apart that it runs."""
    return replace(choice, weights=hash_of(file_of(_way(choice), net)))


def _choose(
    net: Net,
    asked: Sequence[Way],
    threads: int,
    frames: Sequence[Tensor] | None,
    decode: Decode | None,
    report: Report,
) -> tuple[Runtime, Choice]:
    """Try every way that was asked for, and return the fastest that agrees with the reference."""
    tensors = frames or [drawn_frame(net)]
    report("running the reference", 0, None)
    first = open_way(net.reference, net, threads, report=report)
    reference = Reference(_seen(first, net), tensors, decode or _decode_of(net.package))
    built = {net.reference: first}
    wanted = net.reference in asked
    reason = "" if wanted else _ONLY_COMPARED
    trials = [Trial(*_names(net.reference), first.device, None, "", wanted, reason)]
    for number, way in enumerate(asked):
        if way != net.reference:
            report(f"trying {way.runtime} in {way.precision}", number, len(asked))
            trial, runtime = _try(way, net, threads, frames, reference, report)
            trials.append(trial)
            if runtime is not None:
                built[way] = runtime
    times = dict(
        zip(built, median_ms([_seen(each, net) for each in built.values()], tensors[0]), strict=True)
    )
    trials = [replace(trial, ms=times.get(_way(trial))) for trial in trials]
    judged_on = f"{len(tensors)} frame(s)" if frames else "a drawn frame"
    choice = _with_weights(pick(trials, judged_on), net)
    return built[_way(choice)], choice


def _try(
    way: Way,
    net: Net,
    threads: int,
    frames: Sequence[Tensor] | None,
    reference: Reference,
    report: Report,
) -> tuple[Trial, Runtime | None]:
    """Build one way and judge it; return it only if it agrees."""
    try:
        runtime = open_way(way, net, threads, frames=frames, report=report)
        agreement, failed = reference.judge(_seen(runtime, net), Agreement())
    except CytoloopError as error:
        return Trial(*_names(way), "", None, "", False, str(error)), None
    trial = Trial(*_names(way), runtime.device, None, agreement, not failed, "; ".join(failed))
    return trial, None if failed else runtime


def pick(trials: Sequence[Trial], judged_on: str) -> Choice:
    """Return the fastest way that was accepted; of several about as fast, the most exact.

    Parameters
    ----------
    trials
        What was tried, the reference first, with times.
    judged_on
        What the ways were compared on, in words.

    Raises
    ------
    ModelError
        If none was accepted; says why not, way by way.
    """
    accepted = [(trial.ms, trial) for trial in trials if trial.accepted and trial.ms is not None]
    if not accepted:
        reasons = "; ".join(f"{trial.runtime} {trial.precision}: {trial.reason}" for trial in trials[1:])
        raise ModelError(f"nothing that was asked for agrees with the reference: {reasons}")
    fastest = min(ms for ms, _ in accepted)
    near = [(_EXACTNESS.index(trial.precision), ms, trial) for ms, trial in accepted if ms <= NEAR * fastest]
    _, ms, chosen = min(near, key=lambda entry: entry[:2])
    reason = f"{ms:.1f} ms a frame, the reference {trials[0].ms or 0:.1f} ms"
    if len(accepted) > 1:
        reason += f"; the fastest of {len(accepted)} that agree, judged on {judged_on}"
    else:
        reason += f"; no other works and agrees, judged on {judged_on}"
    return Choice(chosen.runtime, chosen.precision, chosen.device, reason, tuple(trials))


def recall(net: Net, runtime: str, precision: str, threads: int) -> Choice | None:
    """Return the choice that was kept for this computer, these libraries and this net; None if there is none."""
    made_from, path = _kept(net, runtime, precision, threads)
    try:
        content = read_cached(path, made_from)
        return None if content is None else msgspec.convert(json.loads(content), Choice)
    except (CacheDamagedError, ValueError):
        return None


def remember(net: Net, runtime: str, precision: str, threads: int, choice: Choice) -> None:
    """Keep a choice, so that the next start makes the same one."""
    made_from, path = _kept(net, runtime, precision, threads)
    try:
        write_cached(path, made_from, json.dumps(asdict(choice)).encode())
    except OSError as error:
        _log.warning("the choice of a runtime cannot be kept, the next start makes it anew: %s", error)


def remember_trials(net: Net, threads: int, trials: Sequence[Trial], judged_on: str) -> Choice:
    """Keep what follows from trials of all ways, for any runtime and for each; return that for any."""
    for name in dict.fromkeys(trial.runtime for trial in trials):
        own = [trial for trial in trials if trial.runtime == name]
        if own[0] is not trials[0]:
            own.insert(0, replace(trials[0], accepted=False, reason=_ONLY_COMPARED))
        if any(trial.accepted for trial in own):
            remember(net, name, "auto", threads, _with_weights(pick(own, judged_on), net))
    choice = _with_weights(pick(trials, judged_on), net)
    remember(net, "auto", "auto", threads, choice)
    return choice


def _kept(net: Net, runtime: str, precision: str, threads: int) -> tuple[dict[str, str], Path]:
    asked = {"what": "choice", "asked": f"{runtime} {precision}", "threads": str(threads)}
    made_from = asked | {"demanded": str(Agreement())} | identity(net)
    return made_from, cache_folder() / "choices" / f"{key_of(made_from)}.json"


def _seen(runtime: Runtime, net: Net) -> Runtime:
    """Return a runtime as the segmenter sees it: behind what its package asks for."""
    return runtime if net.package is None else adapt(runtime, net.package)


def _decode_of(package: ModelPackage | None) -> Decode | None:
    if package is None or not package.decoder:
        return None
    decoder = build(find_class("decoders", package.decoder), package.decoder_options)
    pitch = (float(package.grid), float(package.grid))
    return lambda outputs, shape: decoder.decode(outputs, Grid(shape, pitch)).image
