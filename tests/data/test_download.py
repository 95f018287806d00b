"""Archives are unpacked whole or not at all; a server on this machine stands for the real one."""

import dataclasses
import hashlib
import tarfile

import pytest

from umr_jax.data import cub
from umr_jax.data.download import Archive, unpack


def _archive(folder, content="birds", *, name="birds.tgz", url=""):
  """A tar file with one text in one folder."""
  inside = folder / "source" / content
  inside.mkdir(parents=True)
  (inside / "wing.txt").write_text("feather")
  with tarfile.open(folder / name, "w:gz") as tar:
    tar.add(inside, content)
  digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
  return Archive(name=name, url=f"{url}/{name}", sha256=digest, size="1 kB", content=content)


def _trusting(archive, path):
  """The archive, if this were the published file."""
  return dataclasses.replace(archive, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def _left(folder):
  return sorted(path.name for path in folder.iterdir())


def test_an_archive_is_fetched_and_not_kept(server, tmp_path):
  served, url = server.folder, server.url
  unpack(_archive(served, url=url), tmp_path / "data")
  assert (tmp_path / "data" / "birds" / "wing.txt").read_text() == "feather"
  assert _left(tmp_path / "data") == ["birds"]


def test_an_archive_on_the_disk_needs_no_server(tmp_path):
  data = tmp_path / "data"
  data.mkdir()
  archive = dataclasses.replace(_archive(data), url="http://127.0.0.1:9/birds.tgz")
  unpack(archive, data)
  assert (data / "birds" / "wing.txt").exists()


def test_another_file_under_the_address_is_refused(server, tmp_path):
  served, url = server.folder, server.url
  archive = dataclasses.replace(_archive(served, url=url), sha256="0" * 64)
  with pytest.raises(OSError, match="not the published file"):
    unpack(archive, tmp_path / "data")
  assert _left(tmp_path / "data") == []


def test_a_missing_file_and_a_silent_server_are_said(server, tmp_path):
  served, url = server.folder, server.url
  archive = dataclasses.replace(_archive(served, url=url), url=f"{url}/none.tgz")
  with pytest.raises(OSError, match="404"):
    unpack(archive, tmp_path / "data")
  with pytest.raises(OSError, match="cannot be fetched"):
    unpack(dataclasses.replace(archive, url="http://127.0.0.1:9/birds.tgz"), tmp_path / "data")
  assert _left(tmp_path / "data") == []


@pytest.mark.parametrize("damage", ["cut", "rubbish", "other"])
def test_a_damaged_archive_leaves_nothing(tmp_path, damage):
  data = tmp_path / "data"
  data.mkdir()
  archive = _archive(data)
  path = data / archive.name
  if damage == "cut":
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  elif damage == "rubbish":
    path.write_bytes(b"<html>sign in</html>")
  else:
    archive = dataclasses.replace(archive, content="fish")
  # Also where the damage is such that nobody can tell by the checksum.
  for trusted in (archive, _trusting(archive, path)):
    with pytest.raises(ValueError, match=r"not the published|cannot be unpacked|no folder fish"):
      unpack(trusted, data)
  assert _left(data) == ["birds.tgz", "source"]


def test_a_link_in_an_archive_is_refused(tmp_path):
  """It could lead outside, and what is written through it would lie there."""
  archive = _archive(tmp_path)
  with tarfile.open(tmp_path / archive.name, "w:gz") as tar:
    link = tarfile.TarInfo("birds/wings")
    link.type, link.linkname = tarfile.SYMTYPE, "/tmp"
    tar.addfile(link)
  with pytest.raises(ValueError, match="birds/wings is no regular file"):
    unpack(_trusting(archive, tmp_path / archive.name), tmp_path)
  assert _left(tmp_path) == ["birds.tgz", "source"]


def test_a_folder_that_is_there_in_part_is_not_touched(tmp_path):
  data = tmp_path / "data"
  (data / "birds").mkdir(parents=True)
  (data / "birds" / "mine.txt").write_text("keep")
  archive = _archive(data)
  with pytest.raises(ValueError, match="not complete; move it away"):
    unpack(archive, data)
  assert _left(data / "birds") == ["mine.txt"]


def test_cub_says_what_to_do_when_it_cannot_be_fetched(tmp_path, monkeypatch):
  away = tuple(
    dataclasses.replace(archive, url=f"http://127.0.0.1:9/{archive.name}")
    for archive in cub._ARCHIVES
  )
  monkeypatch.setattr(cub, "_ARCHIVES", away)
  options = dict(annotations=None, min_keypoints_train=0, min_keypoints_test=0, margin=0.0)
  with pytest.raises(OSError, match=r"cannot be fetched.*both archives beside"):
    cub.cub_builder(tmp_path / "CUB_200_2011", download=True, **options)
  with pytest.raises(FileNotFoundError, match=r"no images\.txt"):
    cub.cub_builder(tmp_path / "CUB_200_2011", **options)
