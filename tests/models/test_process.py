"""Models in another environment: real processes of a real other environment, and all that can go wrong there."""

from __future__ import annotations

import ast
import gc
import importlib.util
import io
import os
import signal
import subprocess
import sys
import textwrap
import time
import venv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from cytoloop.acquire.errors import ModelError
from cytoloop.acquire.frame import Frame
from cytoloop.models.process import program
from cytoloop.models.process.child import WireFault, receive, receive_array, send
from cytoloop.models.process.environment import WORKERS, find_worker, shipped_workers, variables
from cytoloop.models.process.segmenter import ProcessSegmenter
from cytoloop.models.segmenter import Remembering
from cytoloop.realtime.experiment.config import load_experiment
from cytoloop.realtime.pipeline import Pipeline

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

FIVE_LINES = """
    def load(level=100):
        def segment(image):
            return (image > level).astype("int32")

        return segment
"""

# The brightest px of an image says what the worker does with it.
OBEDIENT = """
    import os, subprocess, sys, time
    import numpy as np

    def segment(image):
        order = int(image.max())
        if order == 1:
            raise ValueError("no cells are that dim")
        if order == 2:
            sys.stderr.write("CUDA out of memory\\n")
            os._exit(7)
        if order == 3:
            time.sleep(600)
        if order == 4:
            print("a progress bar", flush=True)
            os.write(1, b"a library in C")
            subprocess.run([sys.executable, "-c", "print('a program')"], check=True)
            sys.stdin.read()
        labels = (image > 100).astype(np.int32)
        labels[0, :2] = os.getpid() % 2**24, 0
        return labels

    def load():
        return segment
"""


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """Return the folder of an environment in which nothing is installed but numpy."""
    folder = tmp_path_factory.mktemp("environments") / "other"
    venv.create(folder, with_pip=False)
    packages = next(folder.rglob("site-packages"))
    (packages / "only_numpy.py").write_text(
        textwrap.dedent(f"""
            import sys
            from importlib.machinery import PathFinder

            class OnlyNumpy:
                def find_spec(name, path=None, target=None):
                    if name == "numpy":
                        return PathFinder.find_spec(name, [{str(Path(np.__file__).parents[1])!r}])

            sys.meta_path.append(OnlyNumpy)
        """)
    )
    (packages / "only_numpy.pth").write_text("import only_numpy\n")
    return folder


@pytest.fixture
def make(environment, tmp_path):
    """Return a function that builds a segmenter from the text of a worker; all are closed at the end."""
    made = []

    def build(text, **options):
        file = tmp_path / "my_model.py"
        file.write_text(textwrap.dedent(text))
        options = {"python": str(environment), "timeout_s": 30, **options}
        made.append(ProcessSegmenter(worker=str(file), **options))
        return made[-1]

    yield build
    for segmenter in made:
        segmenter.close()


def frame_of(value, shape=(20, 30)):
    pixels = np.zeros(shape, np.uint16)
    pixels[5:8, 5:9] = value
    return Frame(pixels)


def pid_of(segmenter):
    return segmenter._model._program._process.pid


def gone(pid, patience_s=10.0):
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


# --- what works ---------------------------------------------------------------------------------------------


def test_five_lines_are_a_segmenter(make):
    segmenter = make(FIVE_LINES, options={"level": 150})
    labels = segmenter.segment(frame_of(200))
    assert labels.count == 1 and labels.image.dtype == np.int32
    assert labels.image.sum() == 12 and labels.image[5:8, 5:9].all()
    assert segmenter.segment(frame_of(120)).count == 0


def test_the_other_environment_has_numpy_and_nothing_of_ours(make, environment, tmp_path):
    text = """
        import importlib.util, json, sys

        def load(to):
            found = [name for name in ("cytoloop", "scipy", "child", "program") if importlib.util.find_spec(name)]
            with open(to, "w") as file:
                json.dump([sys.prefix, found], file)
            return lambda image: image
    """
    make(text, options={"to": str(tmp_path / "told.json")})
    prefix, found = __import__("json").loads((tmp_path / "told.json").read_text())
    assert Path(prefix).samefile(environment) and found == []


def test_the_interpreter_may_be_named_instead_of_its_folder(make, environment):
    inside = "Scripts/python.exe" if sys.platform == "win32" else "bin/python"
    assert make(FIVE_LINES, python=str(environment / inside)).segment(frame_of(200)).count == 1


def test_without_an_interpreter_it_is_the_one_that_runs_us(make):
    assert make(FIVE_LINES, python="").segment(frame_of(200)).count == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (1500, 1100)])
def test_pixels_arrive_as_they_are_and_may_be_written_to(make, dtype, shape):
    pixels = np.random.default_rng(1).integers(0, 250, shape).astype(dtype)
    text = """
        import numpy as np

        def segment(image):
            labels = np.array(image, np.int64)
            image[:] = 0
            return labels

        def load():
            return segment
    """
    labels = make(text).segment(Frame(pixels))
    present = np.unique(pixels[pixels > 0])
    assert np.array_equal(labels.image, np.where(pixels > 0, np.searchsorted(present, pixels) + 1, 0))


def test_several_channels_arrive_in_the_order_that_was_asked_for(make):
    text = """
        def segment(image):
            assert image.shape == (2, 20, 30), image.shape
            return (image[0] == 7) * 1 + (image[1] == 9) * 2

        def load():
            return segment
    """
    pixels = np.zeros((3, 20, 30), np.uint8)
    pixels[2, 0, 0], pixels[0, 1, 1] = 7, 9
    segmenter = make(text, channels=("C", "A"))
    assert (segmenter.channel, segmenter.channels) == ("C", ("C", "A"))
    labels = segmenter.segment(Frame(pixels, channels=("A", "B", "C"))).image
    assert (labels[0, 0], labels[1, 1], labels.max()) == (1, 2, 2)


@pytest.mark.parametrize("largest", [3, 70_000, 2**31 - 1])
def test_labels_are_renumbered_in_their_order(make, largest):
    text = f"""
        import numpy as np

        def segment(image):
            labels = np.zeros(image.shape, np.uint32)
            labels[0, 0], labels[1, 1], labels[2, 2] = {largest}, 1, {largest} // 2 + 1
            return labels

        def load():
            return segment
    """
    labels = make(text).segment(frame_of(0))
    assert labels.count == 3 and labels.confidence is None
    assert [labels.image[k, k] for k in range(4)] == [3, 1, 2, 0]


@pytest.mark.parametrize(
    ("given", "expected"), [("[0.5, 0.25]", [0.5, 0.25]), ("[0, 0.5, 0, 0.25]", [0.5, 0.25])]
)
def test_confidences_come_for_each_cell_or_for_each_number(make, given, expected):
    text = f"""
        import numpy as np

        def segment(image):
            return np.diag([0, 2, 0, 4]), {given}

        def load():
            return segment
    """
    labels = make(text).segment(frame_of(0, (4, 4)))
    assert labels.confidence.dtype == np.float32 and labels.confidence.tolist() == expected


def test_what_a_model_prints_or_reads_is_not_in_the_way(make):
    assert make(OBEDIENT).segment(frame_of(4)).count == 1
    assert make(OBEDIENT).segment(frame_of(200)).count == 2


def test_what_lies_beside_the_worker_can_be_imported_and_hides_no_package(make, tmp_path):
    (tmp_path / "my_helper.py").write_text("level = 100")
    (tmp_path / "numpy.py").write_text("raise RuntimeError('not this one')")
    text = """
        import numpy as np
        from my_helper import level

        def load():
            return lambda image: (image > level).astype(np.uint8)
    """
    assert make(text).segment(frame_of(200)).count == 1


def test_a_worker_is_found_beside_the_experiment_file_and_a_bad_frame_costs_one_frame(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "beside.py").write_text(textwrap.dedent(OBEDIENT))
    file = tmp_path / "experiment.toml"
    file.write_text('[streams.default]\nhang_s = 60\nsegmenter = { use = "process", worker = "beside.py" }\n')
    pipeline = Pipeline(load_experiment(file).streams["default"])
    replies = [pipeline.step(frame_of(value)).reply for value in (200, 1, 200)]
    assert [len(reply.cells) for reply in replies] == [2, 0, 2]
    assert "ModelError: beside.py, line 8: ValueError: no cells are that dim" in replies[1].messages[0]


# --- a worker that cannot be loaded -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = 1", "my_model.py: it has no function load"),
        ("def load(): return 3", "my_model.py: load returned int; a function segment"),
        ("\ndef load():\n    raise OSError('no weights')", "my_model.py, line 3: OSError: no weights"),
        ("def load(): raise SystemExit('bye')", "my_model.py, line 1: SystemExit: bye"),
        ("def load(: pass", "my_model.py: SyntaxError"),
        (
            "import no_such.part",
            r"my_model.py, line 1: the environment of .*other.* lacks the package 'no_such'",
        ),
        ("import os; os._exit(9)", r"my_model.py: its process ended \(exit code 9\)"),
    ],
)
def test_a_worker_that_cannot_be_loaded_says_why(make, text, reason):
    with pytest.raises(ModelError, match=reason):
        make(text)


def test_an_option_that_load_does_not_take_is_named(make):
    with pytest.raises(ModelError, match="unexpected keyword argument 'levle'"):
        make(FIVE_LINES, options={"levle": 3})


def test_a_model_that_does_not_load_in_time_is_ended(make):
    with pytest.raises(
        ModelError, match=r"loading it took longer than 0.5 s \(start_s\); its process was ended"
    ):
        make("import time\ntime.sleep(600)", start_s=0.5)


def test_an_environment_without_numpy_is_told(make, tmp_path):
    venv.create(tmp_path / "empty", with_pip=False)
    with pytest.raises(ModelError, match=r"exit code 1\).*No module named 'numpy'"):
        make(FIVE_LINES, python=str(tmp_path / "empty"))


@pytest.mark.parametrize("python", ["no/such/python", "no-such-python"])
def test_a_missing_interpreter_is_named(make, python):
    with pytest.raises(ModelError, match=f"python: '{python}' does not exist"):
        make(FIVE_LINES, python=python)


def test_a_folder_that_is_no_environment_is_named(make, tmp_path):
    with pytest.raises(ModelError, match="holds no bin/python"):
        make(FIVE_LINES, python=str(tmp_path))


def test_a_file_that_cannot_be_run_is_named(make, tmp_path):
    (tmp_path / "python").write_text("this is no program")
    with pytest.raises(ModelError, match=r"python: cannot be started"):
        make(FIVE_LINES, python=str(tmp_path / "python"))


def test_a_missing_worker_is_named_with_those_that_ship(tmp_path):
    with pytest.raises(
        ModelError, match=r"'celpose' is neither .*; shipped: cellpose, stardist. Did you mean 'cell"
    ):
        find_worker("celpose")
    (tmp_path / "model.txt").touch()
    with pytest.raises(ModelError, match="is no Python file"):
        find_worker(str(tmp_path / "model.txt"))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"start_s": 0}, "start_s must be above 0"),
        ({"timeout_s": float("nan")}, "timeout_s must be above 0"),
        ({"restarts": -1}, "restarts must be 0 or more"),
        ({"channel": -1}, "channel must be a name, or 0 or more"),
        ({"channels": ("A",)}, "channels must be two or more"),
        ({"channels": ("A", "A")}, "channels must be two or more"),
        ({"options": {"x": object()}}, "options must be numbers"),
    ],
)
def test_a_wrong_option_is_named_before_anything_starts(make, options, named):
    with pytest.raises(ValueError, match=named):
        make(FIVE_LINES, **options)


# --- a frame that fails -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        ("image.astype(float)", "labels of type float64: whole numbers are needed"),
        ("image > 3", "labels of type bool: whole numbers are needed.*scipy.ndimage.label"),
        ("None", "labels of type object"),
        ("image[:5].astype(int)", r"labels of shape \(5, 30\) for an image of \(20, 30\)"),
        ("image.astype(int) - 1", "labels hold -1: 0 is background"),
        ("image.astype('int64') + 2**40", "labels hold 1099511627.*: 0 is background"),
        ("(image, None, None, None)", "segment returned 4 things"),
        ("(image, 0.5)", r"confidences of shape \(\)"),
        ("(image, [0.5, 0.5])", "2 confidences for 1 cells"),
        ("(image, [1.5] * 200)", "confidences must be numbers from 0 to 1"),
        ("(image, [float('nan')] * 200)", "confidences must be numbers from 0 to 1"),
        ("1 / 0", "my_model.py, line 1: ZeroDivisionError"),
    ],
)
def test_what_is_no_mask_is_refused_by_name_and_costs_one_frame(make, returned, reason):
    text = f"load = lambda: lambda image: image if image.max() == 150 else {returned}"
    segmenter = make(text)
    pid = pid_of(segmenter)
    with pytest.raises(ModelError, match=reason):
        segmenter.segment(frame_of(200))
    assert segmenter.segment(frame_of(150)).count == 1
    assert pid_of(segmenter) == pid


def test_a_process_that_dies_costs_one_frame_and_says_what_it_said_last(make):
    segmenter = make(OBEDIENT)
    for _ in range(6):  # more often than restarts: frames in between succeed
        with pytest.raises(ModelError, match=r"ended \(exit code 7\). It said last: CUDA out of memory"):
            segmenter.segment(frame_of(2))
        assert segmenter.segment(frame_of(200)).count == 2


@posix
def test_one_that_is_killed_between_frames_costs_none(make):
    segmenter = make(OBEDIENT)
    segmenter.segment(frame_of(200))
    os.kill(pid_of(segmenter), signal.SIGKILL)
    time.sleep(0.2)
    assert segmenter.segment(frame_of(200)).count == 2


@posix
def test_one_that_is_killed_within_a_frame_costs_that_frame(make):
    segmenter = make(
        "import os\nload = lambda: lambda image: image if image.max() > 1 else os.kill(os.getpid(), 9)"
    )
    with pytest.raises(ModelError, match=r"its process ended \(signal 9\)"):
        segmenter.segment(frame_of(1))
    assert segmenter.segment(frame_of(200)).count == 1


def test_a_frame_that_takes_too_long_ends_the_process_and_the_next_works(make):
    segmenter = make(OBEDIENT, timeout_s=5)
    segmenter.timeout_s = 0.3
    with pytest.raises(
        ModelError, match=r"a frame took longer than 0.3 s \(timeout_s\); its process was ended"
    ):
        segmenter.segment(frame_of(3))
    segmenter.timeout_s = 30
    assert segmenter.segment(frame_of(200)).count == 2


@posix
def test_one_that_does_not_even_read_is_ended_too(make):
    segmenter = make(OBEDIENT)
    os.kill(pid_of(segmenter), signal.SIGSTOP)
    segmenter.timeout_s = 0.3
    with pytest.raises(ModelError, match="a frame took longer"):
        segmenter.segment(frame_of(200, (2000, 2000)))


def test_it_is_not_started_again_for_ever(make):
    segmenter = make(OBEDIENT, restarts=2)
    for _ in range(3):
        with pytest.raises(ModelError, match="exit code 7"):
            segmenter.segment(frame_of(2))
    for _ in range(2):
        with pytest.raises(
            ModelError, match=r"again 2 times in a row.*The last time: its process ended \(exit code 7"
        ):
            segmenter.segment(frame_of(200))


def test_for_another_run_it_is_as_good_as_new_without_being_loaded_again(make):
    segmenter = make(OBEDIENT, restarts=1)
    segmenter.segment(frame_of(200))
    pid = pid_of(segmenter)
    segmenter.reset()
    assert isinstance(segmenter, Remembering) and segmenter.memory(frame_of(200)) == {}
    assert segmenter.segment(frame_of(200)).count == 2 and pid_of(segmenter) == pid
    for _ in range(2):
        with pytest.raises(ModelError, match="exit code 7"):
            segmenter.segment(frame_of(2))
    with pytest.raises(ModelError, match="left alone now"):
        segmenter.segment(frame_of(200))
    segmenter.reset()
    assert segmenter.segment(frame_of(200)).count == 2


# --- the wire -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"\xff\xff\xff\x7f", "a header of 2147483647 bytes"),
        (b"\x00\x00\x00\x00", "a header of 0 bytes"),
        (b"\x02\x00\x00\x00no", "no answer"),
        (b"\x02\x00\x00\x00{}", "no answer"),
        (b"Loading weights: 100%", "a header of"),
        ({"type": "labels", "shape": [60000, 60000], "confidences": -1}, r"labels of shape \(60000, 60000\)"),
        ({"type": "labels", "shape": [20, 30], "confidences": 10**12}, "1000000000000 confidences"),
        ({"type": "labels", "shape": [20, -30], "confidences": -1}, r"labels of shape \(20, -30\)"),
        ({"type": "labels", "shape": [20, 30, 4], "confidences": -1}, "no answer"),
        ({"type": "ready", "python": "", "numpy": ""}, "what was not asked"),
        (
            {"type": "labels", "shape": [20, 30], "confidences": -1},
            "its process ended",
        ),  # and no labels follow
    ],
)
def test_an_answer_that_breaks_the_rules_is_refused_and_ends_the_process(
    make, tmp_path, monkeypatch, answer, reason
):
    fake = tmp_path / "fake_child.py"
    fake.write_text(
        textwrap.dedent(f"""
            import json, os, struct, sys
            def tell(answer):
                if isinstance(answer, dict):
                    text = json.dumps(answer).encode()
                    answer = struct.pack("<I", len(text)) + text
                os.write(1, answer)
            tell({{"type": "ready", "python": "3", "numpy": "1"}})
            sys.stdin.buffer.read(200)
            tell({answer!r})
            os.close(1) if {reason == "its process ended"} else sys.stdin.buffer.read()
        """)
    )
    monkeypatch.setattr(program, "CHILD", fake)
    segmenter = make(FIVE_LINES)
    pid = pid_of(segmenter)
    with pytest.raises(ModelError, match=reason):
        segmenter.segment(frame_of(200))
    assert gone(pid)


def test_one_that_answers_before_it_is_asked_is_refused(make, tmp_path, monkeypatch):
    text = b'{"type":"labels","shape":[1,1],"confidences":-1}'
    fake = tmp_path / "fake_child.py"
    fake.write_text(
        f"import os, sys; os.write(1, {len(text).to_bytes(4, 'little') + text!r}); sys.stdin.read()"
    )
    monkeypatch.setattr(program, "CHILD", fake)
    with pytest.raises(ModelError, match="before it is asked"):
        make(FIVE_LINES)


@pytest.mark.parametrize(
    ("shape", "bytes_", "reason"),
    [((1 << 20, 1 << 20), b"", "at most"), ((2, -2), b"", "at most"), ((3, 3), b"12345", "within an array")],
)
def test_arrays_are_checked_before_memory_is_taken(shape, bytes_, reason):
    with pytest.raises(WireFault, match=reason):
        receive_array(io.BufferedReader(io.BytesIO(bytes_)), shape, "uint8")


def test_a_message_that_ends_too_soon_or_is_too_long_is_none():
    assert receive(io.BufferedReader(io.BytesIO(b""))) is None
    for cut in (b"\x05\x00", b"\x05\x00\x00\x00{}"):
        with pytest.raises(WireFault):
            receive(io.BufferedReader(io.BytesIO(cut)))
    with pytest.raises(WireFault, match="at most"):
        send(io.BytesIO(), {"x": "y" * (1 << 21)})


# --- ending -------------------------------------------------------------------------------------------------


def test_the_process_ends_with_the_segmenter(environment, tmp_path):
    (tmp_path / "my_model.py").write_text(textwrap.dedent(FIVE_LINES))
    segmenter = ProcessSegmenter(worker=str(tmp_path / "my_model.py"), python=str(environment))
    pid = pid_of(segmenter)
    del segmenter
    gc.collect()
    assert gone(pid, 1)


def test_a_closed_segmenter_says_so_and_starts_nothing(make):
    segmenter = make(FIVE_LINES)
    segmenter.close()
    segmenter.close()
    with pytest.raises(ModelError, match="closed"):
        segmenter.segment(frame_of(200))


def test_the_process_ends_with_ours_even_within_a_frame(environment, tmp_path):
    (tmp_path / "my_model.py").write_text(
        textwrap.dedent("""
            import subprocess, sys, time

            def load():
                program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
                with open("started.txt", "w") as file:
                    file.write(str(program.pid))
                return lambda image: time.sleep(600)
        """)
    )
    code = textwrap.dedent(f"""
        import numpy as np
        from cytoloop.acquire.frame import Frame
        from cytoloop.models.process.segmenter import ProcessSegmenter

        segmenter = ProcessSegmenter(worker="my_model.py", python={str(environment)!r})
        print(segmenter._model._program._process.pid, flush=True)
        segmenter.segment(Frame(np.zeros((9, 9), np.uint8)))
    """)
    ours = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    with ours:
        theirs = int(ours.stdout.readline())
        time.sleep(0.3)
        ours.kill()
    assert gone(theirs)
    if sys.platform != "win32":
        assert gone(int((tmp_path / "started.txt").read_text()))


# --- what the other environment gets -------------------------------------------------------------------------


@pytest.mark.parametrize("file", [program.CHILD, *sorted(WORKERS.glob("*.py"))], ids=lambda file: file.name)
def test_what_runs_there_is_old_python_and_imports_numpy_alone(file):
    tree = ast.parse(file.read_text("utf-8"), feature_version=(3, 8))
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or "."] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
        )
    }
    assert imported <= {*sys.stdlib_module_names, "numpy"}


def test_variables_that_are_meant_for_our_python_stay_here(tmp_path):
    (tmp_path / "Scripts").mkdir()
    ours = {"PYTHONPATH": "x", "PYTHONHOME": "y", "PATH": "before", "HOME": "z"}
    given = variables(tmp_path / "python.exe", ours)
    assert set(given) == {"PATH", "HOME", "PYTHONIOENCODING"}
    assert given["PATH"].split(os.pathsep) == [str(tmp_path), str(tmp_path / "Scripts"), "before"]


def worker_module(name):
    spec = importlib.util.spec_from_file_location(f"worker_{name}", find_worker(name))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_shipped_workers_are_there():
    assert shipped_workers() == ["cellpose", "stardist"]


@pytest.fixture(params=["3.1.1", "4.2.1"])
def cellpose(request, monkeypatch):
    """Stand in for Cellpose 3 or 4: what it is built with, and what eval is called with, is kept."""
    kept = SimpleNamespace(version=request.param)

    class CellposeModel:
        def __init__(self, gpu=False, pretrained_model="its default"):
            kept.gpu, kept.model = gpu, pretrained_model

        def eval(self, image, **keywords):
            kept.keywords = keywords
            mask = np.zeros(image.shape[-2:], np.uint16)
            mask[:2], mask[4:] = 1, 2
            logits = np.where(mask == 1, 0.0, 20.0)
            return mask, [None, None, logits], None

    models = SimpleNamespace(
        CellposeModel=CellposeModel, MODEL_NAMES=["cyto3"], get_user_models=lambda: ["mine"]
    )
    module = worker_module("cellpose")
    monkeypatch.setattr(module, "version", lambda name: request.param)
    monkeypatch.setattr(module, "import_module", {"cellpose.models": models}.__getitem__)
    kept.load = module.load
    return kept


def test_the_worker_of_cellpose_calls_both_versions_as_they_want_it(cellpose, tmp_path):
    segment = cellpose.load(diameter=30, flow_threshold=0.2)
    mask, confidences = segment(np.zeros((6, 5), np.uint16))
    old = cellpose.version.startswith("3")
    assert cellpose.model == ("cyto3" if old else "its default") and cellpose.gpu
    expected = {"diameter": 30, "flow_threshold": 0.2}
    assert cellpose.keywords == {**expected, **({"channels": [0, 0]} if old else {})}
    assert mask.shape == (6, 5) and np.allclose(confidences, [0.5, 1.0])
    segment(np.zeros((2, 6, 5), np.uint16))
    assert cellpose.keywords == {**expected, "channel_axis": 0, **({"channels": [1, 2]} if old else {})}
    (tmp_path / "trained").touch()
    for model in ("mine", str(tmp_path / "trained")):
        cellpose.load(model)
        assert cellpose.model == model
    with pytest.raises(ValueError, match=r"no Cellpose model and no file 'cyto9'; known: cyto3, mine"):
        cellpose.load("cyto9")


def test_the_worker_of_stardist_normalises_and_takes_names_and_folders(monkeypatch, tmp_path):
    calls = []

    class StarDist2D:
        def __init__(self, config, name, basedir):
            calls.append((config, name, basedir))

        @classmethod
        def from_pretrained(cls, name):
            return cls(None, name, None) if name == "2D_versatile_fluo" else None

        def predict_instances(self, image, axes, **keywords):
            calls.append((axes, image.shape, float(image.min()), float(image.max()), keywords))
            return np.ones(image.shape[:2], np.int32), {"prob": [0.75]}

    module = worker_module("stardist")
    monkeypatch.setattr(module, "import_module", lambda name: SimpleNamespace(StarDist2D=StarDist2D))
    mask, confidences = module.load(low=0, high=100, prob_thresh=0.3)(
        np.arange(6, dtype=np.uint8).reshape(2, 3)
    )
    assert mask.shape == (2, 3) and confidences == [0.75]
    assert calls == [
        (None, "2D_versatile_fluo", None),
        ("YX", (2, 3), 0.0, 1.0, {"prob_thresh": 0.3}),
    ]
    module.load(str(tmp_path))(np.zeros((2, 4, 3), np.uint16))
    assert calls[2:] == [(None, tmp_path.name, str(tmp_path.parent)), ("YXC", (4, 3, 2), 0.0, 0.0, {})]
    with pytest.raises(ValueError, match="no model 'nope'"):
        module.load("nope")
