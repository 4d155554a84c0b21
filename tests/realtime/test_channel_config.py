"""Channels in the experiment file: every mistake is told with its line and the nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest
from cytoloop.acquire.errors import ConfigurationError, Problem
from cytoloop.realtime.experiment.config import load_experiment
from cytoloop.realtime.experiment.stream import PluginChoice, StreamConfig

START = "[streams.default]\n"
PAIRED = (
    'segmenter = { use = "paired", nuclei = { use = "classical", channel = "DAPI" },'
    ' cells = { use = "classical", channel = "GFP" } }'
)
AT = "streams.default"


def problems_of(folder: Path, text: str) -> tuple[Problem, ...]:
    path = folder / "experiment.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_experiment(path)
    assert all(problem.file == str(path) for problem in caught.value.problems)
    return caught.value.problems


# Text with one mistake, on the line marked #<; its key; a part of the reason; the nearest known name.
BROKEN = {
    "twice": ('channels = [\n  "DAPI",\n  "GFP",\n  "DAPI", #<\n]\n', "channels[2]", "listed twice", ""),
    "type": ('channels = "DAPI" #<\n', "channels", "Expected `array`", ""),
    "empty name": ('channels = ["DAPI", ""] #<\n', "channels", "length >= 1", ""),
    "segmented": ('channels = ["DAPI", "GFP"]\nchannel = "DAIP" #<\n', "channel", "'DAPI', 'GFP'", "DAPI"),
    "every unknown": (
        'channels = ["DAPI", "GFP"]\n[streams.default.every]\nGPF = 5 #<\n', "every.GPF", "no channel 'GPF'", "GFP",
    ),
    "every alone": ("every = { GFP = 5 } #<\n", "every.GFP", "list it in channels first", ""),
    "every zero": ('channels = ["DAPI", "GFP"]\nevery = { GFP = 0 } #<\n', "every", ">= 1", ""),
    "every first": ('every = { DAPI = 2 }\nchannels = ["DAPI", "GFP"] #<\n', "channels", "list 'DAPI' last", ""),
    "every segmented": (
        'channels = ["GFP", "DAPI"]\nchannel = "DAPI"\nevery = { DAPI = 2 } #<\n', "every.DAPI",
        "needed at every time point", "",
    ),
    "latest": ('channels = ["DAPI", "GFP"]\npolicy = "latest" #<\n', "policy", "lossless stream only", ""),
    "segmenter's channel": (
        'channels = ["DAPI", "GFP"]\nsegmenter = { use = "classical", channel = "DAP" } #<\n',
        "segmenter.channel", "no channel 'DAP'; channels holds 'DAPI', 'GFP'", "DAPI",
    ),
    "segmenter's index": (
        'channels = ["DAPI", "GFP"]\nsegmenter = { use = "classical", channel = 2 } #<\n',
        "segmenter.channel", "no channel 2", "",
    ),
    "two segmented": (
        'channels = ["DAPI", "GFP"]\nsegmenter = { use = "classical", channel = "DAPI" }\nchannel = "GFP" #<\n',
        "channel", "the segmenter looks at 'DAPI'", "",
    ),
    "channel of a pair": (
        f'channels = ["DAPI", "GFP"]\n{PAIRED}\nchannel = "GFP" #<\n', "channel", "several channels", "",
    ),
    "every of a pair": (
        f'channels = ["DAPI", "GFP"]\n{PAIRED}\nevery = {{ GFP = 2 }} #<\n', "every.GFP",
        "looks at 'GFP', so it is needed", "",
    ),
    "option of a pair": (
        'segmenter = { use = "paired", nuclei = { use = "classical", treshold = 1 }, cells = { ring_px = 3 } } #<\n',
        "segmenter.nuclei.treshold", "unknown option", "threshold",
    ),
    "option on its line": (
        'segmenter.use = "paired"\nsegmenter.cells.ring_um = 3\nsegmenter.nuclei.use = "classical"\n'
        "segmenter.nuclei.diameter_px = 1 #<\n",
        "segmenter.nuclei.diameter_px", "3 to 2000", "",
    ),
    "part of a pair": (
        'segmenter = { use = "paired", nuclei = 3, cells = { ring_px = 3 } } #<\n',
        "segmenter.nuclei", "Expected `str | object`", "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_mistake_is_reported_with_line_key_reason_and_nearest_name(tmp_path: Path, case: str) -> None:
    text, key, reason, hint = BROKEN[case]
    (problem,) = problems_of(tmp_path, START + text)
    assert problem.key == f"{AT}.{key}"
    assert reason in problem.reason
    assert problem.did_you_mean == hint
    assert problem.line == (START + text)[: (START + text).index("#<")].count("\n") + 1


def test_a_right_file_is_read_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "experiment.toml"
    path.write_text(f'{START}channels = ["DAPI", "GFP", "Cy5"]\nevery = {{ Cy5 = 5 }}\n{PAIRED}\n')
    stream = load_experiment(path).streams["default"]
    assert (stream.channels, stream.every) == (("DAPI", "GFP", "Cy5"), {"Cy5": 5})
    assert stream.segmenter.options["cells"] == {"use": "classical", "channel": "GFP"}


def test_a_configuration_made_in_code_is_checked_too() -> None:
    with pytest.raises(ConfigurationError, match=r"channels\[1\]: 'DAPI' is listed twice"):
        StreamConfig(channels=("DAPI", "DAPI"))
    with pytest.raises(ConfigurationError, match="Did you mean 'DAPI'"):
        StreamConfig(channels=("DAPI",), channel="DAPPI", segmenter=PluginChoice("classical"))
