"""The cache: what was written comes back whole or not at all, and is told apart by what it was made of."""

from __future__ import annotations

from pathlib import Path

import pytest
from cytoloop.models.runtimes.cache import CacheDamagedError, cache_folder, key_of, read_cached, write_cached
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

MADE_FROM = {"what": "engine", "for": "8.6"}


def test_what_was_written_comes_back_for_the_same_maker_only(tmp_path):
    path = tmp_path / "deep" / "file"
    assert read_cached(path, MADE_FROM) is None
    for payload in (b"", b"engine" * 1000):
        write_cached(path, MADE_FROM, payload)
        assert read_cached(path, dict(reversed(MADE_FROM.items()))) == payload
        assert read_cached(path, MADE_FROM | {"for": "8.9"}) is None
    assert list(path.parent.iterdir()) == [path]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_is_noticed(tmp_path, data):
    path = tmp_path / "file"
    write_cached(path, MADE_FROM, bytes(range(200)))
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] ^= data.draw(st.integers(1, 255))
    else:
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    path.write_bytes(content)
    with pytest.raises(CacheDamagedError, match="file: "):
        read_cached(path, MADE_FROM)


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_cached(path, MADE_FROM, b"before")

    def fail(self, target):
        raise OSError("the disk is full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="full"):
        write_cached(path, MADE_FROM, b"after")
    assert read_cached(path, MADE_FROM) == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_in_place_of_the_file_is_damage(tmp_path):
    with pytest.raises(CacheDamagedError, match="cannot be read"):
        read_cached(tmp_path, MADE_FROM)


def test_the_key_changes_with_every_value_and_not_with_their_order():
    keys = {key_of(MADE_FROM), key_of(MADE_FROM | {"for": "8.9"}), key_of({"what": "engine"})}
    assert len(keys) == 3
    assert key_of(dict(reversed(MADE_FROM.items()))) in keys


def test_the_folder_can_be_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv("CYTOLOOP_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("CYTOLOOP_CACHE")
    assert cache_folder().is_absolute()
    assert "cytoloop" in str(cache_folder()).lower()
