"""What the parameter ``cache`` of an estimator may be."""

import threading
from pathlib import Path

import pytest

from sktl._engine._cache import bypassed_caches, open_cache


class TestOpenCache:
    def test_auto_is_one_per_process(self):
        """All estimators share the memory cache, and its bound is the documented one."""
        assert open_cache("auto") is open_cache("auto")
        assert 0 < open_cache("auto").max_bytes <= 1024**3

    def test_none_is_off(self):
        """None means no cache."""
        assert open_cache(None) is None

    @pytest.mark.parametrize("kind", [str, Path])
    def test_path_is_a_directory_made_on_first_use(self, tmp_path, kind, entries):
        """Opening touches no disk; the first use makes the directory, parents included."""
        path = tmp_path / "a" / "b"
        cache = open_cache(kind(path))
        assert not (tmp_path / "a").exists()
        cache.put_many(entries.items([1]))
        assert entries.read(open_cache(kind(path)), [1]) == [True]

    def test_home_is_expanded(self, tmp_path, monkeypatch):
        """A leading tilde is the user's home, not a directory of that name."""
        monkeypatch.setenv("HOME", str(tmp_path))
        assert open_cache("~/features").path == tmp_path / "features"

    @pytest.mark.parametrize("wrong", [True, 3, b"store", ["store"]])
    def test_other_types_are_refused(self, wrong):
        """The error restates what came and names the three ways out."""
        with pytest.raises(TypeError, match=r"cache=.*'auto'.*directory.*None"):
            open_cache(wrong)

    def test_a_file_is_refused(self, tmp_path):
        """A path to a file is named in the error, and the file is left alone."""
        (tmp_path / "file").write_text("mine")
        with pytest.raises(ValueError, match=r"file.*is a file"):
            open_cache(tmp_path / "file")
        assert (tmp_path / "file").read_text() == "mine"

    def test_empty_path_is_refused(self):
        """An empty string does not become the working directory."""
        with pytest.raises(ValueError, match="empty path"):
            open_cache("")


class TestBypassedCaches:
    def test_no_cache_is_opened_inside(self, tmp_path, entries):
        """Neither the memory nor a directory; afterwards, an error in there or not, they hold what they held."""
        before = [open_cache(tmp_path), open_cache("auto")]
        before[0].put_many(entries.items([1]))
        with bypassed_caches():
            assert open_cache(tmp_path) is None
            with pytest.raises(RuntimeError, match="inside"), bypassed_caches():
                raise RuntimeError("inside")
            assert open_cache("auto") is None
        assert entries.read(open_cache(tmp_path), [1]) == [True]
        assert open_cache("auto") is before[1]

    def test_other_threads_keep_theirs(self):
        """Who times something does not slow a fit in another thread."""
        seen = []
        with bypassed_caches():
            thread = threading.Thread(target=lambda: seen.append(open_cache("auto")))
            thread.start()
            thread.join()
        assert seen == [open_cache("auto")]
