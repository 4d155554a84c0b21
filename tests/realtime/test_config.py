from __future__ import annotations

import pickle
from pathlib import Path

import msgspec
import numpy as np
import pytest
from cytoloop.acquire.commands import Command, SetProperty
from cytoloop.acquire.coordinates import Affine
from cytoloop.acquire.errors import ConfigurationError, MissingExtraError, Problem
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.governor.limits import Limits
from cytoloop.acquire.link.keys import make_keys
from cytoloop.models.detections import Detections
from cytoloop.models.labels import Labels
from cytoloop.realtime.experiment.config import load_experiment, single_stream
from cytoloop.realtime.experiment.stream import StreamConfig
from cytoloop.realtime.rules.rule import Moment, Verdict
from cytoloop.realtime.service.server import Service
from cytoloop.trackers.tracks import Tracks


class Blind:
    """A segmenter that never sees a cell."""

    channel = 0

    def __init__(self, threshold: float = 1.0) -> None:
        if threshold <= 0:
            raise ValueError(f"threshold must be > 0, got {threshold}")

    def segment(self, frame: Frame) -> Labels:
        return Labels(np.zeros(frame.shape, np.int32), 0)


class Slow(Blind):
    """A segmenter that gives up by itself."""

    def __init__(self, timeout_s: float = 30.0, start_s: float = 120.0) -> None:
        super().__init__()
        self.timeout_s, self.start_s = timeout_s, start_s


class Forgetful:
    """A tracker that is never called here."""

    def update(self, detections: Detections) -> Tracks:
        raise NotImplementedError


class Opener:
    """A rule that sets a property."""

    name = "opener"

    def examples(self) -> tuple[Command, ...]:
        return (SetProperty("Shutter", "State", "1"),)

    def decide(self, moment: Moment) -> Verdict:
        return Verdict()


class Needy:
    """Needs something that is not installed."""

    def __init__(self) -> None:
        raise MissingExtraError("torch", "train")


class Broken:
    """Fails in its own way."""

    def __init__(self) -> None:
        raise KeyError("weights")


PLUGINS = f'segmenter = {{ use = "{__name__}:Blind" }}\ntracker = {{ use = "{__name__}:Forgetful" }}\n'
START = "[streams.default]\n" + PLUGINS
RULE = START + "[[streams.default.rules]]\n"
LIMITS = START + "[streams.default.limits]\n"


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "experiment.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def problems_of(folder: Path, text: str | bytes) -> tuple[Problem, ...]:
    path = write(folder, text)
    with pytest.raises(ConfigurationError) as caught:
        load_experiment(path)
    assert all(problem.file == str(path) for problem in caught.value.problems)
    return caught.value.problems


# Text with one mistake, on the line marked #<; its key; a part of the reason; the nearest known name.
BROKEN = {
    "top key": (f'lgo = "x" #<\n{START}', "lgo", "unknown key; allowed: streams, log", "log"),
    "log type": (f"log = 5 #<\n{START}", "log", "5: Expected `str`, got `int`", ""),
    "streams type": ("streams = 3 #<\n", "streams", "expected a table, got a number", ""),
    "stream type": ("[streams] \ndefault = 3 #<\n", "streams.default", "expected a table, got a number", ""),
    "stream list": ("[[streams]] #<\n", "streams", "expected a table, got an array", ""),
    "stream name": (f"[streams.'a/b'] #<\n{PLUGINS}", "streams.'a/b'", "letters, digits", ""),
    "windows name": (f"[streams.con] #<\n{PLUGINS}", "streams.con", "reserves", ""),
    "stream key": (f'{START}polcy = "latest" #<\n', "streams.default.polcy", "unknown key", "policy"),
    "name inside": (f'{START}name = "x" #<\n', "streams.default.name", "unknown key", "armed"),
    "policy": (
        f'{START}policy = "lossles" #<\n',
        "streams.default.policy",
        "'lossles' is not allowed; allowed: 'lossless', 'latest'",
        "lossless",
    ),
    "credit low": (f"{START}credit = 0 #<\n", "streams.default.credit", "0: Expected `int` >= 1", ""),
    "credit high": (f"{START}credit = 65 #<\n", "streams.default.credit", "<= 64", ""),
    "credit type": (f"{START}credit = true #<\n", "streams.default.credit", "got `bool`", ""),
    "hang": (f"{START}hang_s = -1 #<\n", "streams.default.hang_s", ">= 0.1", ""),
    "masks": (f'{START}save_masks = "yes" #<\n', "streams.default.save_masks", "Expected `bool`", ""),
    "date": (f"{START}channel = 1979-05-27 #<\n", "streams.default.channel", "Expected `str`", ""),
    "pixel size": (f"{START}pixel_size_um = 0 #<\n", "streams.default.pixel_size_um", "> 0", ""),
    "affine shape": (f"{START}affine = [[1, 0]] #<\n", "streams.default.affine", "length 2", ""),
    "affine flat": (f"{START}affine = [[1, 2], [2, 4]] #<\n", "streams.default.affine", "inverted", ""),
    "both maps": (
        f"{START}affine = [[1, 0], [0, 1]]\npixel_size_um = 1 #<\n",
        "streams.default.pixel_size_um",
        "not both",
        "",
    ),
    "nan": (f"{LIMITS}x_um = [0.0,\n nan] #<\n", "streams.default.limits.x_um[1]", "nan is not a finite", ""),
    "infinite": (f"{START}hang_s = inf #<\n", "streams.default.hang_s", "inf is not a finite number", ""),
    "huge": (f"{START}credit = {10**400} #<\n", "streams.default.credit", "64 bits", ""),
    "address": (f'{START}address = "udp://x:1" #<\n', "streams.default.address", "inproc://NAME", ""),
    "port": (f'{START}address = "tcp://127.0.0.1:99999" #<\n', "streams.default.address", "65535", ""),
    "open address": (
        f'{START}address = "tcp://0.0.0.0:5790" #<\n',
        "streams.default.address",
        "cytoloop keys",
        "",
    ),
    "no keys": (f'{START}keys = "nowhere" #<\n', "streams.default.keys", "no service.key_secret", ""),
    "same address": (
        f'{START}address = "tcp://localhost:7000"\n[streams.b]\naddress = "tcp://127.0.0.1:7000" #<\n{PLUGINS}',
        "streams.b.address",
        "stream 'default' listens at 'tcp://localhost:7000' too",
        "",
    ),
    "same default": (f"{START}[streams.b] #<\n{PLUGINS}", "streams.b.address", "an address of its own", ""),
    "same folder": (
        f'{START}[streams.DEFAULT] #<\naddress = "ipc://x"\n{PLUGINS}',
        "streams.DEFAULT",
        "by case only",
        "",
    ),
    "segmenter": (
        '[streams.a]\nsegmenter = { use = "clasical" } #<\n' + PLUGINS.split("\n")[1],
        "streams.a.segmenter.use",
        "no 'clasical' among the segmenters; known: ",
        "classical",
    ),
    "segmenter option": (
        f'[streams.a]\nsegmenter = {{ use = "{__name__}:Blind", treshold = 2 }} #<\n'
        + PLUGINS.split("\n")[1],
        "streams.a.segmenter.treshold",
        "unknown option; allowed: threshold",
        "threshold",
    ),
    "segmenter range": (
        f'[streams.a]\n[streams.a.segmenter]\nuse = "{__name__}:Blind"\nthreshold = 0 #<\n'
        f'[streams.a.tracker]\nuse = "{__name__}:Forgetful"',
        "streams.a.segmenter.threshold",
        "threshold must be > 0, got 0",
        "",
    ),
    "hang within timeout": (
        f'[streams.a]\nhang_s = 30 #<\nsegmenter = "{__name__}:Slow"\n' + PLUGINS.split("\n")[1],
        "streams.a.hang_s",
        "30 s, but the segmenter takes up to 30 s for one frame (its timeout_s); set hang_s above 30",
        "",
    ),
    "hang by default": (
        f'[streams.a] #<\nsegmenter = "{__name__}:Slow"\n' + PLUGINS.split("\n")[1],
        "streams.a.hang_s",
        "10 s, but the segmenter takes up to 30 s for one frame",
        "",
    ),
    "start within loading": (
        f'[streams.a]\nstart_s = 60 #<\nhang_s = 31\nsegmenter = "{__name__}:Slow"\n'
        + PLUGINS.split("\n")[1],
        "streams.a.start_s",
        "60 s, but the segmenter takes up to 120 s to load its model (its start_s)",
        "",
    ),
    "hang of no use": (
        f'[streams.a]\nhang_s = -1 #<\nsegmenter = "{__name__}:Slow"\n' + PLUGINS.split("\n")[1],
        "streams.a.hang_s",
        ">= 0.1",
        "",
    ),
    "start": (f"{START}start_s = 0 #<\n", "streams.default.start_s", ">= 1", ""),
    "no use": (
        f"{START}[[streams.default.rules]] #<\nwhich = 1",
        "streams.default.rules[0].use",
        "expected a name; known: follow, on_division",
        "",
    ),
    "rule": (
        f'{RULE}use = "folow" #<\n',
        "streams.default.rules[0].use",
        "no 'folow' among the rules",
        "follow",
    ),
    "rule option": (
        f'{RULE}use = "follow"\nwhich = "center" #<\n',
        "streams.default.rules[0].which",
        "allowed: 'centre', 'brightest', 'largest'",
        "centre",
    ),
    "rule needs": (
        f'{START}[[streams.default.rules]] #<\nuse = "stop_at_count"',
        "streams.default.rules[0].count",
        "this option is needed",
        "",
    ),
    "second rule": (
        f'{RULE}use = "follow"\n[[streams.default.rules]]\nuse = "stop_at_count"\ncount = 0 #<\n',
        "streams.default.rules[1].count",
        "count must be >= 1, got 0",
        "",
    ),
    "same rule": (
        f'{RULE}use = "follow"\n[[streams.default.rules]]\nuse = "follow" #<\n',
        "streams.default.rules[1].use",
        "rules[0] is called 'follow' too",
        "",
    ),
    "rule table": (f'{START}rules = "follow" #<\n', "streams.default.rules", "array of tables", ""),
    "impossible rule": (
        f'{RULE}use = "on_division" #<\nduration_ms = 500\n[streams.default.limits]\nstimulation_ms_max = 100',
        "streams.default.rules[0].use",
        "duration_ms 500 ms: allowed 0 to 100 ms",
        "",
    ),
    "forbidden property": (
        f'{RULE}use = "{__name__}:Opener" #<\n',
        "streams.default.rules[0].use",
        "property 'Shutter.State' is not allowed; allowed: none",
        "",
    ),
    "no such module": (
        f'{RULE}use = "no_such_module:X" #<\n',
        "streams.default.rules[0].use",
        "cannot import",
        "",
    ),
    "no class": (f'{RULE}use = "os:sep" #<\n', "streams.default.rules[0].use", "cannot be used", ""),
    "not a rule": (
        f'{RULE}use = "{__name__}:Blind" #<\n',
        "streams.default.rules[0].use",
        "lacks decide(",
        "",
    ),
    "missing extra": (
        f'{RULE}use = "{__name__}:Needy" #<\n',
        "streams.default.rules[0].use",
        "cytoloop[train]",
        "",
    ),
    "plugin fails": (f'{RULE}use = "{__name__}:Broken" #<\n', "streams.default.rules[0].use", "KeyError", ""),
    "limit key": (f"{LIMITS}x_m = [0, 1] #<\n", "streams.default.limits.x_m", "unknown key", "x_um"),
    "limit order": (f"{LIMITS}x_um = [1, -1] #<\n", "streams.default.limits.x_um", "lowest <= highest", ""),
    "limit length": (f"{LIMITS}y_um = [1, 2, 3] #<\n", "streams.default.limits.y_um", "length 2", ""),
    "limit type": (f'{LIMITS}z_um = "none" #<\n', "streams.default.limits.z_um", "Expected `array", ""),
    "limit power": (
        f"{LIMITS}stimulation_power_max = 1.5 #<\n",
        "streams.default.limits.stimulation_power_max",
        "<= 1",
        "",
    ),
    "limit exposure": (f"{LIMITS}exposure_ms = [0, 5] #<\n", "streams.default.limits.exposure_ms", "> 0", ""),
    "limit property": (
        f'{LIMITS}properties = ["State"] #<\n',
        "streams.default.limits.properties",
        "regex",
        "",
    ),
    "limits type": (
        f"{START}limits = [] #<\n",
        "streams.default.limits",
        "expected a table, got an array",
        "",
    ),
    "no quotes": (f"{START}policy = latest #<\n", "streams.default.policy", "text stands in quotes", ""),
    "no equals": (f"{START}policy #<\n", "streams.default", "not valid TOML: Expected '='", ""),
    "open string": (f'{START}policy = "latest #<\n', "streams.default.policy", "not valid TOML", ""),
    "open header": (f"{START}[streams.b #<\n", "streams.default", "not valid TOML", ""),
    "twice": (f"{START}credit = 1\ncredit = 2 #<\n", "streams.default.credit", "overwrite", ""),
    "bad byte": (f"{START}channel = 'µ' #<\n".encode("latin-1"), "", "not UTF-8 text (byte 0xb5)", ""),
    "binary": (b"\x00\x01\x02 #<\n", "", "not valid TOML", ""),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_mistake_is_reported_with_line_key_reason_and_nearest_name(tmp_path: Path, case: str) -> None:
    text, key, reason, hint = BROKEN[case]
    data = text if isinstance(text, bytes) else text.encode()
    problems = problems_of(tmp_path, data)
    assert len(problems) == 1, problems
    assert problems[0].key == key
    assert reason in problems[0].reason
    assert problems[0].did_you_mean == hint
    assert problems[0].line == data[: data.index(b"#<")].count(b"\n") + 1


def test_all_mistakes_of_a_file_are_reported_at_once_in_the_order_of_its_lines(tmp_path: Path) -> None:
    text = f'{START}credit = 0\npolcy = "x"\n[[streams.default.rules]]\nuse = "folow"\n[streams.default.limits]\nx = 1'
    keys = [problem.key for problem in problems_of(tmp_path, text)]
    at = "streams.default."
    assert keys == [f"{at}credit", f"{at}polcy", f"{at}rules[0].use", f"{at}limits.x"]


def test_the_message_names_file_line_key_and_hint(tmp_path: Path) -> None:
    path = write(tmp_path, f"{START}polcy = 1")
    with pytest.raises(ConfigurationError) as caught:
        load_experiment(path)
    assert str(caught.value).startswith(f"{path}:4: streams.default.polcy: unknown key")
    assert str(caught.value).endswith("Did you mean 'policy'?")


@pytest.mark.parametrize("text", ["", "# nothing", 'log = "x"', "[streams]"])
def test_a_file_without_streams_is_refused(tmp_path: Path, text: str) -> None:
    (problem,) = problems_of(tmp_path, text)
    assert problem.key == "streams"
    assert "at least one stream" in problem.reason


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "[" * 100_000,
        "x = " + "[" * 5_000 + "]" * 5_000,
        "x = " + "[" * 100 + "]" * 100,
        "x = " + "{a = " * 3_000 + "1" + "}" * 3_000,
        ".".join("a" * 3_000) + " = 1",
        "[" + ".".join("a" * 3_000) + "]",
        "x = " + "9" * 10_000,
        "x = 0x" + "f" * 10_000,
        "x = 1e999",
        "x = '" + "a" * (1 << 18) + "'",
        ".".join("a" * 100_000) + " = 1",
        "\n".join(f"credi{i} = 1" for i in range(15_000)),
        "\n".join(f"[streams.s{i}]" for i in range(15_000)),
        b"\xff\xfe[\x00a\x00]\x00",
        b"\x7fELF\x02\x01\x01" + bytes(range(256)) * 10,
        b"a = 1\rb = 2",
        b"\x80",
        "x = '''\n\n",
        '"\\ud800" = 1',
        "\x00",
        "streams = [[[]]]",
        "[streams.a]\nrules = [[[]], 3]\nsegmenter = []\ntracker = {}\nlimits = 1979-01-01",
        '[streams.a]\nsegmenter = { use = ":" }\ntracker = { use = "os:" }\nrules = [{ use = "a:b:c" }]',
        '[streams.a]\nsegmenter = { use = "sys:exit" }',
        f"[streams.a]\nsegmenter = {{ use = '{'x' * 5000}' }}",
    ],
)
def test_a_hostile_file_gets_a_clear_error_and_never_a_traceback(tmp_path: Path, text: str | bytes) -> None:
    for problem in problems_of(tmp_path, text):
        assert problem.reason


@pytest.mark.parametrize("name", ["missing.toml", ".", "nul\0.toml"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_experiment(f"{tmp_path}/{name}")


def test_byte_order_mark_and_windows_line_ends_are_accepted(tmp_path: Path) -> None:
    text = START + 'channel = "DAPI"\n'
    crlf = b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()
    assert load_experiment(write(tmp_path, crlf)).streams["default"].channel == "DAPI"
    wrong = problems_of(tmp_path, crlf + b"\r\ncredit = 0\r\n")
    assert wrong[0].line == 6


def test_what_is_left_out_takes_the_documented_defaults(tmp_path: Path) -> None:
    stream = load_experiment(write(tmp_path, START)).streams["default"]
    plain = StreamConfig(segmenter=stream.segmenter, tracker=stream.tracker)
    assert stream == plain
    assert (plain.address, plain.policy, plain.credit, plain.hang_s) == (
        "tcp://127.0.0.1:5790",
        "lossless",
        3,
        10.0,
    )


def test_a_complete_file_is_read_as_it_stands(tmp_path: Path) -> None:
    make_keys(tmp_path / "secrets")
    text = f"""
    log = "out/runs"
    [streams.left]
    address = "tcp://0.0.0.0:0"
    keys = "secrets"
    policy = "latest"
    credit = 5
    channel = "GFP"
    save_masks = true
    hang_s = 2
    start_s = 600
    affine = [[0, 0.5], [-0.5, 0]]
    segmenter = {{ use = "{__name__}:Blind", threshold = 3 }}
    tracker = "{__name__}:Forgetful"
    rules = [{{ use = "follow", deadband_um = 1 }}, {{ use = "on_division", name = "light" }}]
    limits = {{ x_um = [-1, 1], properties = ["LED.State"] }}
    [streams.right]
    address = "tcp://127.0.0.1:0"
    {PLUGINS}
    """
    experiment = load_experiment(write(tmp_path, text))
    left = experiment.streams["left"]
    assert Path(experiment.log) == tmp_path / "out" / "runs"
    assert Path(left.keys) == tmp_path / "secrets"
    assert (left.policy, left.credit, left.channel, left.save_masks, left.hang_s) == (
        "latest",
        5,
        "GFP",
        True,
        2.0,
    )
    assert left.start_s == 600.0
    assert left.segmenter.options == {"threshold": 3}
    assert [rule.use for rule in left.rules] == ["follow", "on_division"]
    assert left.limits == Limits(x_um=(-1.0, 1.0), properties=("LED.State",))
    assert list(experiment.streams) == ["left", "right"]


def test_an_experiment_survives_pickling_and_msgpack() -> None:
    experiment = single_stream(StreamConfig(address="ipc://x", limits=Limits(z_um=(0, 5))), log="here")
    assert pickle.loads(pickle.dumps(experiment)) == experiment
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(experiment), type=type(experiment)) == experiment


def test_the_configured_map_goes_before_the_pixel_size_of_the_frame() -> None:
    assert StreamConfig().pixel_map(None) is None
    assert StreamConfig().pixel_map(0.0) is None
    assert StreamConfig().pixel_map(0.5) == Affine(0.5, 0, 0, 0.5)
    assert StreamConfig(pixel_size_um=2.0).pixel_map(0.5) == Affine(2.0, 0, 0, 2.0)
    assert StreamConfig(affine=((0, 1), (-1, 0))).pixel_map(0.5) == Affine(0, 1, -1, 0)


def test_a_configuration_made_in_code_is_checked_too() -> None:
    with pytest.raises(ConfigurationError, match="pixel_size_um"):
        StreamConfig(pixel_size_um=1.0, affine=((1, 0), (0, 1)))
    with pytest.raises(ConfigurationError, match="cannot name a stream"):
        StreamConfig(name="../up")
    with pytest.raises(ConfigurationError, match="x_um"):
        Limits(x_um=(1.0, 0.0))


def test_a_plugin_beside_the_experiment_file_is_found_also_by_the_engine(tmp_path: Path):
    (tmp_path / "beside_me.py").write_text(
        "from cytoloop.realtime.bench.blank import Blank\nclass Mine(Blank):\n    pass\n"
    )
    path = tmp_path / "experiment.toml"
    path.write_text(
        '[streams.default]\naddress = "tcp://127.0.0.1:0"\nsegmenter = { use = "beside_me:Mine" }\n'
    )
    with Service(load_experiment(path)) as service:
        assert service.status()["default"].address.startswith("tcp://127.0.0.1:")
