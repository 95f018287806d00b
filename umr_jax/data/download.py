"""Files of published data sets: downloaded by pooch, and archives unpacked whole or not at all."""

import dataclasses
import ftplib
import pathlib
import posixpath
import shutil
import socket
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import pooch
import requests
from absl import logging

Result = TypeVar("Result")

# Seconds without a byte after which a server counts as unreachable.
TIMEOUT = 20.0
_CHUNK = 1 << 20
_ABSENT = (403, 404, 410)  # S3 returns 403 for absent files that may not be listed
# What connections raise that break off; other errors of the system are the disk's.
_BROKEN = (EOFError, ConnectionError, TimeoutError, socket.gaierror)

# What the readers of damaged archives raise; of an OSError the disk's have a number.
_DAMAGE = (
  tarfile.TarError,
  zipfile.BadZipFile,
  zlib.error,
  EOFError,
  NotImplementedError,  # a kind of compression that there is not
  RuntimeError,  # a password
  ValueError,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Archive:
  """A published tar or zip file."""

  name: str  # of the file
  url: str
  sha256: str  # empty where none is published: then the checksums in a zip file must do
  size: str  # for people
  content: str  # the folder in it that is wanted


class UnreachableError(OSError):
  """A server does not respond, or the connection broke off."""


class AbsentError(OSError):
  """A server responds that it has no such file."""


def fetch(
  url: str,
  path: pathlib.Path,
  *,
  sha256: str = "",
  begins: Sequence[bytes] = (),
  progress: bool = False,
) -> None:
  """Downloads a file, which appears whole or not at all; may be used by many threads.

  Args:
    url: http, https or ftp.
    path: of the file, which must not exist yet; folders are made.
    sha256: the published checksum; empty where there is none.
    begins: what such a file may begin with; a network that asks to sign in responds to any request
      with a web page.
    progress: whether to show a progress bar.

  Raises:
    UnreachableError: when the server does not respond, or not to the end.
    AbsentError: when the server has no such file.
    OSError: when what arrived is another file or damaged, or the disk cannot be written.
  """
  options = {"progressbar": progress, "chunk_size": _CHUNK, "timeout": TIMEOUT}
  ftp = url.startswith("ftp:")
  downloader = pooch.FTPDownloader(**options) if ftp else pooch.HTTPDownloader(**options)

  def download(url: str, output_file: str, pooch_instance: object) -> None:
    # pooch's temporary file is readable by its owner alone: an ordinary one takes its place.
    pathlib.Path(output_file).unlink()
    downloader(url, output_file, pooch_instance)
    with pathlib.Path(output_file).open("rb") as file:
      start = file.read(20)
    if begins and not start.startswith(tuple(begins)):
      raise OSError(f"{url} is another kind of file: it begins with {start!r}")

  pooch.get_logger().setLevel("WARNING")  # by default it logs every single file
  known_hash = f"sha256:{sha256}" if sha256 else None
  try:
    pooch.retrieve(url, known_hash, fname=path.name, path=path.parent, downloader=download)
  except requests.HTTPError as error:
    absent = error.response is not None and error.response.status_code in _ABSENT
    kind: type[OSError] = AbsentError if absent else OSError
    raise kind(f"{url} cannot be fetched: {error}") from error
  except (requests.RequestException, ftplib.Error, *_BROKEN) as error:
    kind = AbsentError if str(error).startswith("550") else UnreachableError
    raise kind(f"{url} cannot be fetched: {error}") from error
  except ValueError as error:  # the checksum
    raise OSError(f"{url} is not the published file: {error}") from error


def unpack(
  archive: Archive,
  folder: pathlib.Path,
  *,
  contents: Mapping[str, pathlib.Path] | None = None,
  optional: Iterable[str] = (),
) -> None:
  """Makes folders from an archive that lies in a folder already, or is fetched.

  What was fetched is compared with its checksum, and is not kept. A folder that appears is
  complete: an unpacking that was interrupted leaves nothing, unless the process is killed, which
  leaves a hidden folder with the archive's name.

  Args:
    archive: what to unpack.
    folder: where the archive may lie, and where there is room; made if missing.
    contents: folders of the archive and what is made of them, on the same disk as `folder`; None
      takes the archive's content, and makes a folder of the same name.
    optional: those of `contents` that the archive need not hold.

  Raises:
    OSError: when the archive can neither be found nor fetched, or the folder cannot be written.
    ValueError: when the archive is not the published one, or what it would make is there in part.
  """
  if contents is None:
    contents = {archive.content: folder / archive.content}
  folder.mkdir(parents=True, exist_ok=True)
  for target in contents.values():
    if _is_filled(target):
      raise ValueError(
        f"{target} is there, but not complete; move it away, so that it is made anew"
      )
  with tempfile.TemporaryDirectory(dir=folder, prefix=f".{archive.name}-") as scratch:
    local, label = _find(archive, folder, pathlib.Path(scratch))
    logging.info("Unpacking %s.", label)
    unpacked = pathlib.Path(scratch) / "unpacked"
    _read(label, lambda: _extract(local, unpacked, contents))
    missing = [name for name in contents if not (unpacked / name).is_dir()]
    if refused := [name for name in missing if name not in set(optional)]:
      raise ValueError(f"{label} holds no folder {', '.join(refused)}")
    for name, target in contents.items():
      if name not in missing:
        _place(unpacked / name, target)


def unpack_files(
  archive: Archive, folder: pathlib.Path, targets: Mapping[str, pathlib.Path]
) -> list[str]:
  """Takes single files out of a zip file that lies in a folder already, or is fetched.

  Each appears whole or not at all; what was fetched is not kept.

  Args:
    archive: the zip file.
    folder: where it may lie, and where there is room.
    targets: names of files in it, without folders, and what they become on the same disk.

  Returns:
    The names that the zip file lacks.

  Raises:
    OSError: when it can neither be found nor fetched, or the disk cannot be written.
    ValueError: when it is damaged, by its own checksums.
  """
  with tempfile.TemporaryDirectory(dir=folder, prefix=f".{archive.name}-") as scratch:
    local, label = _find(archive, folder, pathlib.Path(scratch))

    def extract() -> list[str]:
      with zipfile.ZipFile(local) as opened:
        places = {posixpath.basename(member): member for member in opened.namelist()}
        for name in targets.keys() & places.keys():
          copy = pathlib.Path(scratch) / f"{name}.part"
          with opened.open(places[name]) as source, copy.open("wb") as file:
            shutil.copyfileobj(source, file)
          targets[name].parent.mkdir(parents=True, exist_ok=True)
          copy.replace(targets[name])
        return [name for name in targets if name not in places]

    return _read(label, extract)


def _find(
  archive: Archive, folder: pathlib.Path, scratch: pathlib.Path
) -> tuple[pathlib.Path, str]:
  """An archive on the disk, fetched if it is not in its folder, and its name for messages."""
  local = folder / archive.name
  if not local.exists():
    logging.info("Fetching %s (%s) from %s.", archive.name, archive.size, archive.url)
    local = scratch / archive.name
    begins = [b"PK"] if archive.name.endswith(".zip") else []
    fetch(archive.url, local, sha256=archive.sha256, begins=begins, progress=True)
    return local, archive.url
  if archive.sha256 and pooch.file_hash(str(local)) != archive.sha256:
    raise ValueError(f"{local} is not the published file: it is damaged, or another; fetch it anew")
  return local, str(local)


def _read(label: str, reader: Callable[[], Result]) -> Result:
  """Runs a reader of an archive, and names the archive where it fails."""
  try:
    return reader()
  except _DAMAGE as error:
    raise ValueError(f"{label} cannot be unpacked: {error}") from error
  except OSError as error:
    if error.errno is None:
      raise ValueError(f"{label} cannot be unpacked: {error}") from error
    raise OSError(f"{label} cannot be unpacked: {error}") from error


def _extract(path: pathlib.Path, unpacked: pathlib.Path, folders: Iterable[str]) -> None:
  """Unpacks the folders alone."""
  prefixes = tuple(f"{folder}/" for folder in folders)

  def is_wanted(name: str) -> bool:
    return f"{posixpath.normpath(name)}/".startswith(prefixes)

  if zipfile.is_zipfile(path) or path.suffix == ".zip":
    with zipfile.ZipFile(path) as archive:
      archive.extractall(unpacked, [name for name in archive.namelist() if is_wanted(name)])
    return
  with tarfile.open(path) as tar:
    # Not `extractall`: its filter, without which links could lead outside, is younger than 3.11.2.
    for member in (member for member in tar if is_wanted(member.name)):
      target = unpacked / posixpath.normpath(member.name)
      if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        continue
      if not member.isreg():
        raise tarfile.TarError(f"{member.name} is not a regular file")
      target.parent.mkdir(parents=True, exist_ok=True)
      tar.makefile(member, str(target))


def _place(source: pathlib.Path, target: pathlib.Path) -> None:
  target.parent.mkdir(parents=True, exist_ok=True)
  try:
    source.rename(target)
  except OSError:
    # Another process was faster: folders appear complete.
    if not _is_filled(target):
      raise


def _is_filled(folder: pathlib.Path) -> bool:
  return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
