import errno
import os
from pathlib import Path

import pytest

from moedb.errors import MoedbError, UsageError
from moedb.queries.results.export import export
from moedb.queries.results.files import write_together
from tests.support.stores.result_samples import (
    the_sample,
)


class TestAtomicity:
    """Fail the n-th call, for all n: the files are all old or all new."""

    @pytest.mark.parametrize("existing", [False, True])
    @pytest.mark.parametrize("call", ["fsync", "replace", "open"])
    @pytest.mark.parametrize(
        "failure", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()]
    )
    def test_all_or_nothing(self, tmp_path, monkeypatch, existing, call, failure):
        paths = [tmp_path / "a", tmp_path / "b"]
        old = [b"old a", b"old b"] if existing else []
        new = dict(zip(paths, (b"new a", b"new b"), strict=True))
        owner = os if call == "fsync" else Path
        original = getattr(owner, call)
        n_failed = 0
        for n in range(1, 10):
            for path, content in zip(paths, old, strict=False):
                path.write_bytes(content)
            calls = 0

            def failing(*args, n=n, **kwargs):
                nonlocal calls
                calls += 1
                if calls == n:
                    raise failure
                return original(*args, **kwargs)

            raised: BaseException | None = None
            with monkeypatch.context() as patch:
                patch.setattr(owner, call, failing)
                try:
                    write_together(new)
                except (MoedbError, KeyboardInterrupt) as error:
                    raised = error
            content = [path.read_bytes() for path in sorted(tmp_path.iterdir())]
            n_failed += raised is not None
            if content != old:
                # an interrupt may come when all is done but syncing the folder
                assert not isinstance(raised, MoedbError)
                assert content == [b"new a", b"new b"]
            for path in tmp_path.iterdir():
                path.unlink()
        assert n_failed >= 2

    def test_full_disk_is_no_usage_error(self, tmp_path, monkeypatch):
        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(MoedbError, match="No space left on device") as caught:
            export(the_sample(), tmp_path / "x.csv")
        assert not isinstance(caught.value, UsageError)
        assert list(tmp_path.iterdir()) == []

    def test_without_hard_links(self, tmp_path, monkeypatch):
        def refuse(*_):
            raise OSError(errno.EPERM, "no links here")

        (tmp_path / "a").write_bytes(b"old")
        monkeypatch.setattr(Path, "hardlink_to", refuse)
        write_together({tmp_path / "a": b"new"})
        assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"new"]

    def test_a_link_stays_a_link(self, tmp_path):
        (tmp_path / "real").write_bytes(b"old")
        (tmp_path / "link").symlink_to(tmp_path / "real")
        write_together({tmp_path / "link": b"new"})
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "real").read_bytes() == b"new"
