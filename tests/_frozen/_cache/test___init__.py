"""What the parameter ``cache`` of an estimator may be."""

import os
import re
import shutil
import tempfile
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest

from sktl import PretrainedFeatureExtractor
from sktl._frozen._cache import bypassed_caches, open_cache
from sktl.exceptions import CacheWarning


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
        with pytest.raises(TypeError, match=r"^cache must be 'auto'.*directory.*None.* Got .* instead\.$"):
            open_cache(wrong)

    def test_a_path_of_bytes_is_refused(self):
        """Such a path-like object is no more a path than bytes are."""

        class Bytes:
            def __fspath__(self):
                return b"store"

        with pytest.raises(TypeError, match=r"^cache must be 'auto'.*directory.*None.* Got .* instead\.$"):
            open_cache(Bytes())

    @pytest.mark.parametrize(
        ("path", "reason"),
        [
            ("file", "a file"),
            ("file/store", "Not a directory"),
            ("nothing", "a file or a broken link"),
            ("loop", "a file or a broken link"),
            ("a\0b", "null"),
            ("\ud800", "surrogates"),
            ("x" * 300, "too long"),
            ("x/" * 5000, "too long"),
            ("x/" * 1900, "recursion"),
        ],
        ids=["file", "in a file", "link to nothing", "link to itself", "NUL", "surrogate", "name", "path", "depth"],
    )
    def test_a_path_that_is_no_directory_does_not_stop_the_work(self, tmp_path, features, path, reason):
        """The features are those without a cache, with one warning in a process; what lies there is left alone."""
        (tmp_path / "file").write_text("mine")
        (tmp_path / "nothing").symlink_to(tmp_path / "absent")
        (tmp_path / "loop").symlink_to(tmp_path / "loop")
        given = f"{tmp_path}/{path}"
        with pytest.warns(CacheWarning, match=rf"^cache='.*{reason}.*Results are correct but not cached") as caught:
            np.testing.assert_array_equal(features(given), features(None))
        assert len(caught) == 1
        np.testing.assert_array_equal(features(given), features(None))  # a second warning would be an error
        assert (tmp_path / "file").read_text() == "mine"
        assert not (tmp_path / "absent").exists()

    def test_a_home_that_nobody_has(self, features):
        """A tilde that means no directory is a warning, and no error."""
        with pytest.warns(CacheWarning, match=r"^cache='~nobody_of_this_name/x'.*home directory\)") as caught:
            np.testing.assert_array_equal(features("~nobody_of_this_name/x"), features(None))
        assert len(caught) == 1
        np.testing.assert_array_equal(features("~nobody_of_this_name/x"), features(None))

    def test_a_working_directory_that_was_removed(self, features, monkeypatch):
        """A relative path leads nowhere then."""

        def no_directory():
            raise FileNotFoundError(2, "No such file or directory")

        monkeypatch.setattr(os, "getcwd", no_directory)
        with pytest.warns(CacheWarning, match=r"^cache='relative/x'.*No such file"):
            np.testing.assert_array_equal(features("relative/x"), features(None))

    def test_a_folder_that_may_not_be_entered(self, features, as_nobody):
        """Neither reading nor writing is possible, and the work goes on."""
        expected = features(None)
        with tempfile.TemporaryDirectory() as parent:
            os.chmod(parent, 0o600)

            def work():
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    got = [features(f"{parent}/store") for _ in range(2)]
                (warning,) = caught
                assert re.search(
                    r"^cache=.*Permission denied.*Results are correct but not cached", str(warning.message)
                )
                return all(np.array_equal(values, expected) for values in got)

            assert as_nobody(work)

    def test_a_directory_that_a_fitted_estimator_used_is_replaced_by_a_file(self, tmp_path):
        """What was fitted goes on predicting."""
        X = np.random.default_rng(0).random((6, 8, 8))
        extractor = PretrainedFeatureExtractor(cache=str(tmp_path / "store")).fit(X)
        expected = extractor.transform(X)
        shutil.rmtree(tmp_path / "store")
        (tmp_path / "store").touch()
        with pytest.warns(CacheWarning, match=r"^cache=.*a file"):
            np.testing.assert_array_equal(extractor.transform(X), expected)
        np.testing.assert_array_equal(extractor.transform(X), expected)

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
