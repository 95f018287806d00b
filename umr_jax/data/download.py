"""Archives of published data sets: from the disk or fetched, and unpacked whole or not at all."""

import dataclasses
import pathlib
import tarfile
import tempfile
import zlib

import pooch
import requests
from absl import logging

# Seconds without a byte after which a server counts as unreachable.
_PATIENCE = 20.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Archive:
  """A published tar file."""

  name: str  # of the file
  url: str
  sha256: str
  size: str  # for people
  content: str  # the folder in it that is wanted


def unpack(archive: Archive, folder: pathlib.Path, *, patience: float = _PATIENCE) -> None:
  """Makes `folder / archive.content` from an archive that lies there already, or is fetched.

  What was fetched is compared with its checksum, and is not kept. A folder that appears is
  complete: an unpacking that was interrupted leaves nothing.

  Args:
    archive: what to unpack.
    folder: where; made if missing.
    patience: seconds without an answer after which the server counts as unreachable.

  Raises:
    OSError: when the archive can neither be found nor fetched, or the folder cannot be written.
    ValueError: when the archive is not the published one, or what it would make is there in part.
  """
  folder.mkdir(parents=True, exist_ok=True)
  target = folder / archive.content
  if target.exists() and any(target.iterdir()):
    raise ValueError(f"{target} is there, but not complete; move it away, so that it is made anew")
  with tempfile.TemporaryDirectory(dir=folder, prefix=f".{archive.content}-") as scratch:
    local = folder / archive.name
    if not local.exists():
      local = _fetch(archive, pathlib.Path(scratch), patience)
    elif pooch.file_hash(str(local), alg="sha256") != archive.sha256:
      raise ValueError(
        f"{local} is not the published file: it is damaged, or another; fetch it anew"
      )
    logging.info("Unpacking %s.", local)
    unpacked = pathlib.Path(scratch) / "unpacked"
    try:
      with tarfile.open(local) as tar:
        tar.extractall(unpacked, filter="data")
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
      raise ValueError(f"{local} cannot be unpacked: {error}") from error
    wanted = unpacked / archive.content
    if not wanted.is_dir():
      raise ValueError(f"{local} holds no folder {archive.content}")
    try:
      wanted.rename(target)
    except OSError:
      # Another process was faster: folders appear complete.
      if not (target.is_dir() and any(target.iterdir())):
        raise


def _fetch(archive: Archive, scratch: pathlib.Path, patience: float) -> pathlib.Path:
  logging.info("Fetching %s (%s) from %s.", archive.name, archive.size, archive.url)
  try:
    return pathlib.Path(
      pooch.retrieve(
        archive.url,
        known_hash=f"sha256:{archive.sha256}",
        fname=archive.name,
        path=scratch,
        downloader=pooch.HTTPDownloader(progressbar=True, timeout=patience),
      )
    )
  except requests.RequestException as error:
    raise OSError(f"{archive.url} cannot be fetched: {error}") from error
  except ValueError as error:  # the checksum
    raise OSError(f"{archive.url} is not the published file: {error}") from error
