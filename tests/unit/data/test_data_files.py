"""Finding, downloading and cutting files into blocks."""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tessera.data.blocks import blocks, lines
from tessera.data.files import DataFileError, find


def test_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "root" / "films").mkdir(parents=True)
    (tmp_path / "root" / "films" / "u.data").write_text("x")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "own.csv").write_text("x")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("TESSERA_DATA", str(tmp_path / "root"))
    assert find("films/u.data") == tmp_path / "root" / "films" / "u.data"
    assert find("own.csv") == Path("own.csv")
    assert find(str(tmp_path / "root")) == tmp_path / "root"
    with pytest.raises(FileNotFoundError, match=r"films/u\.dat: no such.*holds no 'u\.dat'; did you mean 'u\.data'"):
        find("films/u.dat")
    with pytest.raises(FileNotFoundError, match=r"holds no 'film'; did you mean 'films'"):
        find("film/u.data")
    monkeypatch.delenv("TESSERA_DATA")
    with pytest.raises(FileNotFoundError, match="TESSERA_DATA is not set"):
        find("films/u.data")


class Quiet(SimpleHTTPRequestHandler):
    requests = 0

    def do_GET(self) -> None:
        Quiet.requests += 1
        super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address that serves it."""
    folder = tmp_path / "site"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_download(site: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, address = site
    monkeypatch.chdir(tmp_path)
    content = b"1 5\n" * 1000
    (folder / "log.txt").write_bytes(content)
    checksum = hashlib.sha256(content).hexdigest()
    before = Quiet.requests
    path = find(f"{address}/log.txt", checksum)
    assert path.read_bytes() == content
    assert path.parent == Path("data/downloads")
    assert find(f"{address}/log.txt", checksum) == path
    assert Quiet.requests == before + 1, "a file that is there is not fetched again"
    path.write_bytes(b"damaged")
    assert find(f"{address}/log.txt", checksum).read_bytes() == content
    with pytest.raises(DataFileError, match="needs the key 'sha256'"):
        find(f"{address}/log.txt")
    with pytest.raises(DataFileError, match=f"has sha256 {checksum}, expected 0000"):
        find(f"{address}/log.txt", "0" * 64)
    with pytest.raises(DataFileError, match=r"other\.txt: cannot be downloaded: HTTP Error 404"):
        find(f"{address}/other.txt", checksum)
    assert [entry.name for entry in Path("data/downloads").iterdir()] == [path.name], "nothing half-written is left"


@pytest.mark.parametrize("size", [1, 3, 7, 64, 1 << 20])
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_blocks(tmp_path: Path, size: int, end: bytes) -> None:
    content = "\n".join(["", "é" * 9, "a", "", "bb"]).encode() + end
    for path, data in ((tmp_path / "x", content), (tmp_path / "x.gz", gzip.compress(content))):
        path.write_bytes(data)
        found = list(blocks(path, size))
        assert b"".join(block.data for block in found) == content.removesuffix(b"\n") + b"\n"
        for block in found:
            assert block.data.endswith(b"\n")
            assert block.first == 1 + b"".join(b.data for b in found if b.first < block.first).count(b"\n")


def test_lines(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xef\xbb\xbfa\r\nb\n\xe9\n")
    assert list(lines(tmp_path / "x", "latin-1")) == [(1, "a"), (2, "b"), (3, "é")]
    with pytest.raises(DataFileError, match="line 3: not utf-8 text"):
        list(lines(tmp_path / "x"))
