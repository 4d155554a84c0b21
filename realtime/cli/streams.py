"""Which stream of which experiment file a command runs on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...acquire.errors import nearest_name

if TYPE_CHECKING:
    from ..experiment.stream import StreamConfig

interval_option = click.option(
    "--interval",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Seconds between frames, for recordings that do not say.",
)


def chosen_stream(config: Path | None, name: str | None) -> StreamConfig:
    """Return one stream of a file, or the default one without a file.

    Raises
    ------
    ConfigurationError
        If the file is wrong.
    click.UsageError
        If it has several streams and none is named, or the name is unknown.
    """
    from ..experiment.config import load_experiment
    from ..experiment.stream import StreamConfig

    if config is None:
        if name is not None:
            raise click.UsageError("--stream chooses one of the streams of a --config file; give that too")
        return StreamConfig()
    streams = load_experiment(config).streams
    if name is None and len(streams) == 1:
        return next(iter(streams.values()))
    if name in streams:
        return streams[name]
    known = ", ".join(streams)
    if name is None:
        raise click.UsageError(f"{config} has several streams; choose one with --stream: {known}")
    hint = nearest_name(name, streams)
    raise click.UsageError(
        f"{config} has no stream {name!r}; it has: {known}." + (f" Did you mean {hint!r}?" if hint else "")
    )
