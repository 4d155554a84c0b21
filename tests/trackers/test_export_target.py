"""Nothing is replaced unasked, and nothing half-written is left."""

from __future__ import annotations

import errno
import os
import sys

import pytest
from cytoloop.acquire.errors import ExportError, MissingExtraError
from cytoloop.trackers.export import write_csv, write_geff, write_napari, write_parquet, write_trackmate
from cytoloop.trackers.export.names import plain_names
from cytoloop.trackers.export.target import new_output

FILES = (write_csv, write_parquet, write_trackmate)
FOLDERS = (write_geff, write_napari)


@pytest.mark.parametrize("write", FILES + FOLDERS)
def test_what_is_there_is_replaced_only_if_asked(tmp_path, busy_graph, write):
    target = tmp_path / "deep" / "out"
    write(busy_graph, target)
    with pytest.raises(ExportError, match="out: exists already; name another, or replace it with --force"):
        write(busy_graph, target)
    write(busy_graph, target, force=True)
    assert [path.name for path in target.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("write", FILES)
def test_a_folder_is_never_replaced_by_a_file(tmp_path, busy_graph, write):
    with pytest.raises(ExportError, match="is a folder; this format is a file"):
        write(busy_graph, tmp_path, force=True)


@pytest.mark.parametrize("write", FOLDERS)
def test_a_folder_of_another_kind_is_never_replaced(tmp_path, busy_graph, write):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").touch()
    with pytest.raises(ExportError, match="holds other things"):
        write(busy_graph, tmp_path / "out", force=True)
    with pytest.raises(ExportError, match="is a file; this format is a folder"):
        write(busy_graph, tmp_path / "out" / "thesis.txt", force=True)
    assert (tmp_path / "out" / "thesis.txt").is_file()


@pytest.mark.parametrize("write", FILES + FOLDERS)
def test_a_target_that_cannot_be_written_is_named(tmp_path, busy_graph, write):
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match="out: cannot be written") as caught:
        write(busy_graph, tmp_path / "file" / "out")
    assert caught.value.begun


@pytest.mark.parametrize("folder", [False, True])
def test_a_full_disk_leaves_what_was_there_and_nothing_else(tmp_path, folder):
    target = tmp_path / "out"
    marker = "mark" if folder else ()
    old = target / "mark" if folder else target
    old.parent.mkdir(exist_ok=True)
    old.write_text("before")
    with pytest.raises(ExportError, match="No space left"):
        with new_output(target, force=True, marker=marker) as temporary:
            if folder:
                temporary.mkdir()
            (temporary / "half" if folder else temporary).write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert old.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(("write", "package"), [(write_geff, "geff"), (write_parquet, "pyarrow")])
def test_a_missing_package_is_told_with_its_extra(tmp_path, busy_graph, write, package, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"{package} is not installed.*cytoloop\[formats\]"):
        write(busy_graph, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_names_are_plain_and_stay_apart():
    names = plain_names(["mean_a b", "mean_a-b", "X", "2nd", ""], taken=["x"])
    assert list(names.values()) == ["mean_a_b", "mean_a_b_2", "X_2", "_2nd", "_"]
