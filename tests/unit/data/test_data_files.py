"""Finding, downloading and cutting files into blocks."""

from __future__ import annotations

import gzip
import hashlib
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tessera.artifacts.logs import PassingError
from tessera.data import downloads
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
        kind = self.path.strip("/").partition("?")[0]
        if kind == "error":
            self.send_error(503)
        elif kind == "loop":
            self.send_response(302)
            self.send_header("Location", self.path)
            self.end_headers()
        elif kind in ("short", "huge"):
            self.send_response(200)
            self.send_header("Content-Length", "1000" if kind == "short" else str(1 << 60))
            self.end_headers()
            self.wfile.write(b"1 5\n")
        elif kind == "endless":
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):
                while True:
                    self.wfile.write(b"1 5\n" * 10_000)
        elif kind == "nonsense":
            self.wfile.write(b"what?\r\n\r\n")
        else:
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
    with pytest.raises(DataFileError, match=r"items\.path: http://127.*/other\.txt: cannot be fetched \(.*404") as gone:
        find(f"{address}/other.txt", checksum, "items.path")
    assert not isinstance(gone.value, PassingError), "no attempt will find it"
    assert [entry.name for entry in Path("data/downloads").iterdir()] == [path.name], "nothing half-written is left"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("error", "503"),
        ("loop", "cannot be fetched"),
        ("short", "broke off after 4 of 1,000 bytes"),
        ("huge", "has 1,152,921,504,606,846,976 bytes; there is room for 5,000,000"),
        ("endless", "sends more than 5,000,000 bytes"),
        ("nonsense", "cannot be fetched"),
    ],
)
def test_what_a_server_does_wrong_is_told(
    site: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(downloads, "LARGEST", 5_000_000)
    with pytest.raises(DataFileError) as caught:
        find(f"{site[1]}/{kind}?key=secret", "0" * 64)
    assert str(caught.value).startswith(f"path: {site[1]}/{kind}?...: ")
    assert expected in str(caught.value)
    assert isinstance(caught.value, PassingError) == (kind in ("error", "short", "nonsense"))
    assert list(Path("data/downloads").iterdir()) == []


def test_a_server_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DataFileError, match=f"http://127.0.0.1:{port}/x: cannot be fetched .*refused"):
        find(f"http://127.0.0.1:{port}/x", "0" * 64)


@pytest.mark.parametrize("end", ["log.txt?a=/../../../x.csv", "..", "a%2F..%2Fb", "log.txt?" + "x" * 500, "log.txt#/é"])
def test_names_of_urls_stay_inside(end: str, site: tuple[Path, str], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[Path] = []
    monkeypatch.setattr(downloads, "_fetch", lambda url, target: seen.append(target.resolve()))
    with pytest.raises(DataFileError, match="expected 0000"):
        find(f"{site[1]}/{end}", "0" * 64)
    assert [path.parent for path in seen] == [tmp_path / "data/downloads"]


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
