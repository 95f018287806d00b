"""Single files from a server: whole or not at all, and none is waited for without end."""

import base64
import contextlib
import hashlib
import pathlib
import re
import threading
import urllib.request
from collections.abc import Generator, Sequence
from typing import Any

import pooch
import requests
import tqdm
import urllib3

# Seconds without a byte after which a server counts as unreachable.
PATIENCE = 20.0
_CHUNK = 1 << 20
_SHOWN = 1 << 22  # bytes from which on a file has a progress bar
_GONE = (403, 404, 410)  # S3 says 403 where it may not say 404


class UnreachableError(OSError):
  """A server does not answer, or broke off."""


class AbsentError(OSError):
  """A server answers that it has no such file."""


class Fetcher:
  """Fetches files, from several threads at once if need be."""

  def __init__(self) -> None:
    """Prepares; nothing is asked for yet."""
    self._sessions = threading.local()  # a session keeps its connection, but is for one thread

  def fetch(
    self, url: str, path: pathlib.Path, *, sha256: str = "", begins: Sequence[bytes] = ()
  ) -> None:
    """Makes `path` out of what lies at an address; what arrives in part or damaged is not kept.

    Its length and MD5 are compared with those that the server names, if it names any.

    Args:
      url: http, https or ftp.
      path: of the file, which must not be there yet; folders are made.
      sha256: the published checksum; empty where there is none.
      begins: what such a file may begin with; a network that asks to sign in answers any question
        with a page.

    Raises:
      UnreachableError: when the server does not answer, or not to the end.
      AbsentError: when the server has no such file.
      OSError: when what arrived is another file or damaged, or the disk cannot be written.
    """

    def stream(url: str, output_file: str, _: Any) -> None:
      # The temporary file is made for its owner alone: one as every other takes its place.
      temporary = pathlib.Path(output_file)
      temporary.unlink()
      self._stream(url, temporary, tuple(begins))

    # At its usual level it tells of every single file.
    pooch.get_logger().setLevel("WARNING")
    try:
      pooch.retrieve(
        url,
        known_hash=f"sha256:{sha256}" if sha256 else None,
        fname=path.name,
        path=path.parent,
        downloader=stream,
      )
    except ValueError as error:  # the checksum
      raise OSError(f"{url} is not the published file: {error}") from error

  def _stream(self, url: str, path: pathlib.Path, begins: tuple[bytes, ...]) -> None:
    source = self._ftp(url) if url.startswith("ftp:") else self._http(url)
    total, digest = 0, hashlib.md5(usedforsecurity=False)
    with contextlib.closing(source), path.open("xb") as file:
      length, named = next(source)
      name, hidden = url.rpartition("/")[2], length < _SHOWN
      bar = tqdm.tqdm(desc=name, total=length, unit="B", unit_scale=True, disable=hidden)
      for chunk in source:
        if total == 0 and begins and not chunk.startswith(begins):
          raise OSError(f"{url} is another kind of file: it begins with {chunk[:20]!r}")
        file.write(chunk)
        digest.update(chunk)
        total += len(chunk)
        bar.update(len(chunk))
      bar.close()
    if begins and not total:
      raise OSError(f"{url} is empty")
    if length and total != length:
      raise UnreachableError(f"{url} cannot be fetched: {total} of {length} bytes arrived")
    if named and digest.digest() != named:
      raise OSError(f"{url} arrived damaged: the server names another MD5")

  def _http(self, url: str) -> Generator[Any, None, None]:
    """The length (0: unknown) and the MD5 (empty: unknown), then the bytes."""
    try:
      with self._get(url) as response:
        if response.status_code in _GONE:
          raise AbsentError(f"{url} cannot be fetched: {response.status_code} {response.reason}")
        response.raise_for_status()
        # Google's storage names it: "crc32c=...,md5=..."
        named = re.search(r"md5=([\w+/=]+)", response.headers.get("x-goog-hash", ""))
        length = int(response.headers.get("Content-Length", 0))
        yield length, base64.b64decode(named[1]) if named else b""
        yield from response.iter_content(_CHUNK)
    except requests.HTTPError as error:
      raise OSError(f"{url} cannot be fetched: {error}") from error
    except requests.RequestException as error:
      raise UnreachableError(f"{url} cannot be fetched: {error}") from error

  def _get(self, url: str) -> requests.Response:
    if not hasattr(self._sessions, "session"):
      self._sessions.session = requests.Session()
    # Bytes as they are stored: their number and MD5 are compared.
    options: dict[str, Any] = {"headers": {"Accept-Encoding": "identity"}, "stream": True}
    options["timeout"] = PATIENCE
    try:
      return self._sessions.session.get(url, **options)
    except requests.ConnectionError as error:
      # A connection that is kept may be closed by the server at the moment of the next question.
      if not any(isinstance(cause, urllib3.exceptions.ProtocolError) for cause in error.args):
        raise
      return self._sessions.session.get(url, **options)

  def _ftp(self, url: str) -> Generator[Any, None, None]:
    """As `_http`; servers name no MD5."""
    try:
      with urllib.request.urlopen(url, timeout=PATIENCE) as response:
        yield int(response.headers.get("Content-Length", 0)), b""
        while chunk := response.read(_CHUNK):
          yield chunk
    except OSError as error:
      kind = AbsentError if "550" in str(error) else UnreachableError
      raise kind(f"{url} cannot be fetched: {error}") from error
