"""Files behind URLs: fetched once, into `data/downloads`, and used only when their checksum is the config's."""

from __future__ import annotations

import hashlib
import re
import shutil
import urllib.request
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from tessera.artifacts.files import NO_ROOM, atomic
from tessera.artifacts.logs import PassingError, Progress, log, may_pass
from tessera.artifacts.shown import shown_url

DOWNLOADS = Path("data/downloads")
LARGEST = 200 << 30
"""Bytes of a file that is fetched; where the disk has less room, that is the bound."""
_SECONDS = 60
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


class DataFileError(ValueError):
    """A raw file that cannot be read as what the config says it is."""


class DownloadError(DataFileError, PassingError):
    """A raw file that could not be fetched this time."""


def is_url(path: str) -> bool:
    """Whether a path of the config is no path, but an address."""
    return _SCHEME.match(path) is not None


def url_problem(url: str, sha256: str | None) -> str | None:
    """What can be known to be wrong with a URL before it is asked for."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError as error:
        return f"{shown_url(url)}: is no URL ({error})"
    if parts.scheme not in ("http", "https", "ftp"):
        return f"{shown_url(url)}: only http, https and ftp are fetched; fetch the file and give its path"
    if not host or re.search(r"[\x00-\x20\x7f]", url):
        return f"{shown_url(url)}: is no URL (expected https://HOST/FILE, without blanks)"
    if sha256 is None:
        return f"{shown_url(url)}: a URL needs the key 'sha256' beside it, the checksum of the file"
    return None


def download(url: str, sha256: str | None, key: str = "path") -> Path:
    """Fetch a URL into `data/downloads` unless it is there with the right checksum.

    Args:
        key: of the config, for messages.
    Raises:
        DataFileError: no checksum, or the bytes have another one; the server refuses, or sends too much.
        DownloadError: there is no answer, or it breaks off; another time it may not.
    """
    problem = url_problem(url, sha256)
    if problem is not None or sha256 is None:
        raise DataFileError(f"{key}: {problem}")
    target = DOWNLOADS / f"{sha256[:12]}-{_name(url)}"
    if target.is_file() and _checksum(target) == sha256:
        return target
    log.info("downloading %s", shown_url(url))
    with atomic(target) as temporary:
        try:
            _fetch(url, temporary)
        except (OSError, HTTPException) as error:  # HTTP errors, no connection, no answer in time
            if getattr(error, "errno", None) in NO_ROOM:
                raise
            raise (DownloadError if may_pass(getattr(error, "code", None)) else DataFileError)(
                f"{key}: {shown_url(url)}: cannot be fetched ({error or type(error).__name__})"
            ) from None
        except _BrokenOff as error:
            raise DownloadError(f"{key}: {shown_url(url)}: {error}") from None
        except _Refused as error:
            raise DataFileError(f"{key}: {shown_url(url)}: {error}") from None
        digest = _checksum(temporary)
        if digest != sha256:
            size = temporary.stat().st_size
            raise DataFileError(
                f"{key}: {shown_url(url)}: the file has sha256 {digest}, expected {sha256} ({size:,} bytes)"
            )
    return target


class _Refused(Exception):
    """What is wrong with an answer."""


class _BrokenOff(Exception):
    """An answer that ends too early."""


def _name(url: str) -> str:
    """The end of a URL as the name of a file, without its query, which may hold a token."""
    return re.sub(r"[^\w.-]+", "_", re.split(r"[?#]", url)[0].rstrip("/").rsplit("/", 1)[-1])[-100:]


def _fetch(url: str, target: Path) -> None:
    with urllib.request.urlopen(url, timeout=_SECONDS) as answer, target.open("wb") as file:
        length = answer.headers.get("Content-Length") or ""
        total = int(length) if length.isdigit() else None
        bound = min(LARGEST, shutil.disk_usage(target.parent).free)
        if total is not None and total > bound:
            raise _Refused(f"has {total:,} bytes; there is room for {bound:,}")
        with Progress("download", total, "bytes") as progress:
            while block := answer.read(1 << 20):
                if progress.done + len(block) > bound:
                    raise _Refused(f"sends more than {bound:,} bytes; there is no room for more")
                file.write(block)
                progress.update(len(block))
        if total is not None and progress.done < total:
            raise _BrokenOff(f"broke off after {progress.done:,} of {total:,} bytes; run again")


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
