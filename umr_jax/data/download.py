"""Archives of published data sets: from the disk or fetched, and unpacked whole or not at all."""

import dataclasses
import hashlib
import pathlib
import posixpath
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from absl import logging

from umr_jax.data.fetch import Fetcher

Result = TypeVar("Result")

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


def unpack(
  archive: Archive,
  folder: pathlib.Path,
  *,
  patience: float | None = None,
  contents: Mapping[str, pathlib.Path] | None = None,
  optional: Iterable[str] = (),
) -> None:
  """Makes folders from an archive that lies in a folder already, or is fetched.

  What was fetched is compared with its checksum, and is not kept. A folder that appears is
  complete: an unpacking that was interrupted leaves nothing, unless the process is killed, which
  leaves a folder that is called as the archive, behind a dot.

  Args:
    archive: what to unpack.
    folder: where the archive may lie, and where there is room; made if missing.
    patience: seconds without an answer after which the server counts as unreachable; None takes
      `fetch.PATIENCE`.
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
    local, label = _find(archive, folder, pathlib.Path(scratch), patience)
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
  archive: Archive,
  folder: pathlib.Path,
  targets: Mapping[str, pathlib.Path],
  *,
  patience: float | None = None,
) -> list[str]:
  """Takes single files out of a zip file that lies in a folder already, or is fetched.

  Each appears whole or not at all; what was fetched is not kept.

  Args:
    archive: the zip file.
    folder: where it may lie, and where there is room.
    targets: names of files in it, without folders, and what they become on the same disk.
    patience: as of `unpack`.

  Returns:
    The names that the zip file lacks.

  Raises:
    OSError: when it can neither be found nor fetched, or the disk cannot be written.
    ValueError: when it is damaged, by its own checksums.
  """
  with tempfile.TemporaryDirectory(dir=folder, prefix=f".{archive.name}-") as scratch:
    local, label = _find(archive, folder, pathlib.Path(scratch), patience)

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
  archive: Archive, folder: pathlib.Path, scratch: pathlib.Path, patience: float | None
) -> tuple[pathlib.Path, str]:
  """An archive on the disk, fetched if it is not in its folder, and its name for messages."""
  local = folder / archive.name
  if not local.exists():
    logging.info("Fetching %s (%s) from %s.", archive.name, archive.size, archive.url)
    local = scratch / archive.name
    begins = [b"PK"] if archive.name.endswith(".zip") else []
    Fetcher(patience).fetch(archive.url, local, sha256=archive.sha256, begins=begins)
    return local, archive.url
  if archive.sha256 and _sha256(local) != archive.sha256:
    raise ValueError(f"{local} is not the published file: it is damaged, or another; fetch it anew")
  return local, str(local)


def _read(label: str, reader: Callable[[], Result]) -> Result:
  """Names the archive where its reader stumbles."""
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
        raise tarfile.TarError(f"{member.name} is no regular file")
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


def _sha256(path: pathlib.Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()
