"""Files arrive and archives are unpacked whole or not at all; local servers stand for the real."""

import dataclasses
import hashlib
import tarfile
import time

import pooch
import pytest

from umr_jax.data import cub, download
from umr_jax.data.download import AbsentError, Archive, UnreachableError, fetch, unpack

CONTENT = bytes(range(256)) * 40


@pytest.fixture(params=["http", "ftp"])
def either(request):
  """One server of each kind, with a file in a folder of it."""
  state = request.getfixturevalue({"http": "server", "ftp": "ftp_server"}[request.param])
  (state.folder / "sets").mkdir()
  (state.folder / "sets" / "A+b.bin").write_bytes(CONTENT)
  return state


def _left(folder):
  return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_file_arrives_in_a_folder_that_is_made(either, tmp_path):
  path = tmp_path / "data" / "deep" / "A+b.bin"
  fetch(f"{either.url}/sets/A+b.bin", path, sha256=hashlib.sha256(CONTENT).hexdigest())
  assert path.read_bytes() == CONTENT and _left(path.parent) == ["A+b.bin"]
  # Others may read it as any file that is made here.
  (tmp_path / "other").write_text("")
  assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_file_that_the_server_lacks_is_told_from_a_server_that_is_not_there(either, tmp_path):
  with pytest.raises(AbsentError, match=r"sets/none\.bin cannot be fetched: .*(404|550)"):
    fetch(f"{either.url}/sets/none.bin", tmp_path / "data" / "none.bin")
  dead = f"{either.url.partition(':')[0]}://127.0.0.1:9/none.bin"
  with pytest.raises(UnreachableError, match="cannot be fetched"):
    fetch(dead, tmp_path / "data" / "none.bin")
  assert _left(tmp_path / "data") == []


def test_a_silent_server_is_given_up(either, tmp_path, monkeypatch):
  either.silent.add("sets/A+b.bin")
  start = time.monotonic()
  monkeypatch.setattr(download, "TIMEOUT", 0.2)
  with pytest.raises(UnreachableError, match="cannot be fetched"):
    fetch(f"{either.url}/sets/A+b.bin", tmp_path / "data" / "A+b.bin")
  assert time.monotonic() - start < 5.0
  assert _left(tmp_path / "data") == []


def test_half_a_file_is_not_kept(server, tmp_path):
  (server.folder / "a.bin").write_bytes(CONTENT)
  server.cut.add("a.bin")
  with pytest.raises(UnreachableError, match="cannot be fetched"):
    fetch(f"{server.url}/a.bin", tmp_path / "data" / "a.bin")
  assert _left(tmp_path / "data") == []


def test_a_server_that_is_busy_is_there(server, tmp_path):
  server.busy.add("a.bin")
  with pytest.raises(OSError, match="503") as caught:
    fetch(f"{server.url}/a.bin", tmp_path / "data" / "a.bin")
  assert not isinstance(caught.value, (AbsentError, UnreachableError))


def test_an_interruption_leaves_nothing(server, tmp_path, monkeypatch):
  (server.folder / "a.bin").write_bytes(CONTENT)
  whole = pooch.HTTPDownloader.__call__

  def interrupted(self, url, output_file, *args):
    whole(self, url, output_file, *args)
    raise KeyboardInterrupt

  monkeypatch.setattr(pooch.HTTPDownloader, "__call__", interrupted)
  with pytest.raises(KeyboardInterrupt):
    fetch(f"{server.url}/a.bin", tmp_path / "data" / "a.bin")
  assert _left(tmp_path / "data") == []


def test_an_error_of_the_disk_is_not_blamed_on_the_server(server, tmp_path):
  (server.folder / "a.bin").write_bytes(CONTENT)
  (tmp_path / "data").write_text("a file where a folder should be")
  with pytest.raises(OSError, match="data") as caught:
    fetch(f"{server.url}/a.bin", tmp_path / "data" / "a.bin")
  assert caught.value.errno is not None
  assert not isinstance(caught.value, (AbsentError, UnreachableError))


@pytest.mark.parametrize("content", [b"<html>sign in</html>", b""])
def test_a_page_in_place_of_the_file_is_not_kept(server, tmp_path, content):
  (server.folder / "a.jpg").write_bytes(content)
  with pytest.raises(OSError, match="another kind of file"):
    fetch(f"{server.url}/a.jpg", tmp_path / "data" / "a.jpg", begins=[b"\xff\xd8"])
  assert _left(tmp_path / "data") == []


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
  with pytest.raises(ValueError, match="birds/wings is not a regular file"):
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
