"""PASCAL3D+ from its archives, on the disk or fetched: servers on this machine stand for theirs."""

import dataclasses
import hashlib
import shutil
import tarfile
import time
import zipfile

import pytest

from tests.data.test_pascal3d import add, make_release
from umr_jax.config.settings import DataConfig
from umr_jax.data import download, pascal3d_files
from umr_jax.data.pascal3d import pascal3d_builder
from umr_jax.data.sources import make_builder

RELEASE, VOC_2012 = pascal3d_files.RELEASE, pascal3d_files.VOC_2012
DEAD = "http://127.0.0.1:9"


def _pack(folder, monkeypatch, release_url=DEAD, voc_url=DEAD, voc_folder=None, with_voc=False):
  """Both archives with a set of two images, and the addresses that lead to them."""
  made = make_release(folder / "made" / RELEASE.content)
  add(made, "2008_000003", source="pascal")
  shutil.rmtree(made / "Masks")
  (made / pascal3d_files.VOC / "SegmentationObject").mkdir()
  (made / pascal3d_files.VOC / "JPEGImages").mkdir()
  (made / "VDPM").mkdir()
  (made / "VDPM" / "code.m").write_text("not needed")
  with tarfile.open((voc_folder or folder) / VOC_2012.name, "w") as tar:
    tar.add(made / pascal3d_files.VOC, VOC_2012.content)
  if not with_voc:
    shutil.rmtree(made / "PASCAL")
  with zipfile.ZipFile(folder / RELEASE.name, "w", zipfile.ZIP_DEFLATED) as archive:
    for path in sorted(made.rglob("*")):
      archive.write(path, path.relative_to(made.parent))
  shutil.rmtree(folder / "made")
  digest = hashlib.sha256(((voc_folder or folder) / VOC_2012.name).read_bytes()).hexdigest()
  release = dataclasses.replace(RELEASE, url=f"{release_url}/{RELEASE.name}")
  voc = dataclasses.replace(VOC_2012, url=f"{voc_url}/{VOC_2012.name}", sha256=digest)
  monkeypatch.setattr(pascal3d_files, "RELEASE", release)
  monkeypatch.setattr(pascal3d_files, "VOC_2012", voc)


def _make_masks(data):
  """What nobody publishes: the silhouettes."""
  made = make_release(data / "made")
  add(made, "2008_000003", source="pascal")
  (data / RELEASE.content).mkdir(exist_ok=True)
  shutil.move(made / "Masks", data / RELEASE.content / "Masks")
  shutil.rmtree(made)


def _names(root):
  builder = pascal3d_builder(root, category="car", margin=10.0, download=True)
  names = [example.name for example in builder.examples()]
  return names, builder.contents().splits


def _left(folder):
  return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


BOTH = (["n02814533_1_1", "2008_000003_1"], {"train": [0], "test": [1]})


@pytest.mark.parametrize("named", [RELEASE.content, "."])
def test_both_archives_are_fetched_and_not_kept(server, ftp_server, tmp_path, monkeypatch, named):
  _pack(ftp_server.folder, monkeypatch, ftp_server.url, server.url, server.folder)
  data = tmp_path / "data"
  data.mkdir()
  _make_masks(data)  # made before: they stay
  assert _names(data / named) == BOTH
  assert _left(data) == [RELEASE.content]
  assert _left(data / RELEASE.content) == ["Annotations", "CAD", "Images", "Masks", "PASCAL"]
  assert _left(data / RELEASE.content / pascal3d_files.VOC) == ["ImageSets", "SegmentationObject"]
  assert ftp_server.asked == [RELEASE.name] and server.asked == [VOC_2012.name]
  assert _names(data / named) == BOTH
  assert ftp_server.asked == [RELEASE.name] and server.asked == [VOC_2012.name]


@pytest.mark.parametrize("with_voc", [False, True])
@pytest.mark.parametrize("named", [RELEASE.content, "."])
def test_archives_in_the_folder_need_no_server(tmp_path, monkeypatch, named, with_voc):
  data = tmp_path / "data"
  data.mkdir()
  _pack(data, monkeypatch, with_voc=with_voc)
  if with_voc:  # the release's own is enough
    (data / VOC_2012.name).unlink()
  _make_masks(data)
  config = DataConfig(source="pascal3d", folder=str(data / named), category="car", download=True)
  builder = make_builder(config)
  assert [example.name for example in builder.examples()] == BOTH[0]
  assert _left(data) == sorted([RELEASE.content, RELEASE.name, *[VOC_2012.name] * (not with_voc)])


def test_what_is_there_already_is_not_made_again(tmp_path, monkeypatch):
  data = tmp_path / "data"
  data.mkdir()
  _pack(data, monkeypatch, with_voc=True)
  _make_masks(data)
  _names(data)
  root = data / RELEASE.content
  shutil.rmtree(root / "CAD")
  (root / "Images" / "mine.txt").write_text("keep")
  assert _names(data) == BOTH
  assert (root / "Images" / "mine.txt").read_text() == "keep"


@pytest.mark.parametrize("what", ["absent", "silent", "cut", "dead"])
@pytest.mark.parametrize("which", ["release", "voc"])
def test_what_cannot_be_fetched_is_said_with_what_to_do(
  server, ftp_server, tmp_path, monkeypatch, what, which
):
  _pack(ftp_server.folder, monkeypatch, ftp_server.url, server.url, server.folder)
  monkeypatch.setattr(download, "TIMEOUT", 0.3)
  state, attribute = {"release": (ftp_server, "RELEASE"), "voc": (server, "VOC_2012")}[which]
  archive = getattr(pascal3d_files, attribute)
  if what == "absent":
    (state.folder / archive.name).unlink()
  elif what == "dead":
    dead = archive.url.replace(state.url, f"{archive.url.partition(':')[0]}://127.0.0.1:9")
    monkeypatch.setattr(pascal3d_files, attribute, dataclasses.replace(archive, url=dead))
  else:
    getattr(state, what).add(archive.name)
  start = time.monotonic()
  reason = (
    r"PASCAL3D\+ is not complete in .*cannot be fetched: .*release1\.1\.zip from https.*beside"
  )
  if (what, which) == (
    "cut",
    "release",
  ):  # FTP does not say how long a file is, but a zip file does
    reason = r"release1\.1\.zip cannot be unpacked"
  with pytest.raises((OSError, ValueError), match=reason):
    _names(tmp_path / "data")
  assert time.monotonic() - start < 5.0
  # The next time goes on from here.
  expected = [] if which == "release" else [RELEASE.content]
  assert _left(tmp_path / "data") == expected


@pytest.mark.parametrize("where", ["disk", "server"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "page"])
def test_a_damaged_release_leaves_nothing(ftp_server, tmp_path, monkeypatch, where, damage):
  data = tmp_path / "data"
  data.mkdir()
  folder = {"disk": data, "server": ftp_server.folder}[where]
  _pack(folder, monkeypatch, release_url=ftp_server.url)
  path = folder / RELEASE.name
  content = bytearray(path.read_bytes())
  if damage == "flipped":  # a byte in the middle of a file's compressed content
    with zipfile.ZipFile(path) as archive:
      item = archive.getinfo(f"{RELEASE.content}/CAD/car.mat")
    content[item.header_offset + 30 + len(item.filename) + item.compress_size // 2] ^= 0xFF
  elif damage == "cut":
    del content[len(content) // 2 :]
  else:
    content = b"<html>sign in</html>"
  path.write_bytes(content)
  with pytest.raises((OSError, ValueError), match=r"1\.zip (cannot be unpacked|is another kind)"):
    _names(data)
  expected = {"disk": sorted([RELEASE.name, VOC_2012.name]), "server": []}[where]
  assert _left(data) == expected


def test_another_voc_archive_is_refused(tmp_path, monkeypatch):
  data = tmp_path / "data"
  data.mkdir()
  _pack(data, monkeypatch)
  (data / VOC_2012.name).write_bytes(b"another")
  with pytest.raises(ValueError, match=r"May-2012\.tar is not the published file"):
    _names(data)


def test_an_interrupted_unpacking_leaves_nothing(tmp_path, monkeypatch):
  data = tmp_path / "data"
  data.mkdir()
  _pack(data, monkeypatch)
  opened = []

  def interrupt(source, target, *args):
    opened.append(target)
    if len(opened) == 3:
      raise KeyboardInterrupt
    target.write(source.read())

  monkeypatch.setattr(zipfile.shutil, "copyfileobj", interrupt)
  with pytest.raises(KeyboardInterrupt):
    _names(data)
  assert len(opened) == 3 and _left(data) == sorted([RELEASE.name, VOC_2012.name])


def test_a_category_that_there_is_not_is_said_before_anything_is_fetched(server, tmp_path):
  with pytest.raises(ValueError, match="no category 'cat'"):
    pascal3d_builder(tmp_path / "data", category="cat", margin=0.25, download=True)
  assert not (tmp_path / "data").exists()


def test_folders_of_silhouettes_that_are_missing_are_said(tmp_path, monkeypatch, caplog):
  data = tmp_path / "data"
  data.mkdir()
  _pack(data, monkeypatch)
  with caplog.at_level("WARNING", logger="absl"):
    builder = pascal3d_builder(data, category="car", margin=0.25, download=True)
  assert "Masks/car_imagenet: images of car_imagenet that VOC 2012 has not segmented" in caplog.text
  with pytest.raises(ValueError, match="n02814533_1_1: it has no silhouette: none of VOC 2012"):
    list(builder.examples())
