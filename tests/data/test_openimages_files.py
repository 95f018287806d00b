"""OpenImages fetched file by file; a server on this machine stands for both of the real ones."""

import dataclasses
import hashlib
import pathlib
import shutil
import time
import zipfile

import pooch
import pytest

from tests.data.test_openimages import PERSON, FakeSet
from umr_jax.config.settings import DataConfig
from umr_jax.data import download, openimages_files
from umr_jax.data.openimages import openimages_builder
from umr_jax.data.sources import make_builder

TABLES = list(openimages_files.ADDRESSES.tables)


class _Served:
  """What the servers have of a small set: two kept objects for training, one for testing."""

  def __init__(self, server, made):
    made.mkdir()
    self.server, self.fake = server, FakeSet(made)
    self.fake.whole("0a")
    self.fake.whole("1a")
    self.fake.whole("0b", IsOccluded=1)
    self.fake.whole("0c", label=PERSON)
    self.fake.whole("fa", split="validation")
    self.fake.whole("0d", split="test", IsGroupOf=1)
    self.publish()

  def publish(self):
    """Packs the masks as they are published, and lays everything out."""
    self.fake.write()
    root, folder = self.fake.root, self.server.folder
    for name in TABLES:
      shutil.copy(root / name, folder / name)
    for split in ("train", "validation", "test"):
      shutil.copytree(root / split, folder / "photos" / split, dirs_exist_ok=True)
      masks = sorted((root / "masks" / split).glob("*.png"))
      for key in sorted({path.name[0] for path in masks}):
        with zipfile.ZipFile(folder / f"{split}-masks-{key}.zip", "w") as archive:
          for path in masks:
            if path.name[0] == key:
              archive.write(path, path.name)

  def asked(self):
    """What was asked for since the last time."""
    asked, self.server.asked[:] = sorted(self.server.asked), []
    return asked


@pytest.fixture
def served(server, tmp_path, monkeypatch):
  state = _Served(server, tmp_path / "made")
  box_file = server.folder / "train-annotations-bbox.csv"
  tables = {
    name: (
      f"{server.url}/{name}",
      hashlib.sha256(box_file.read_bytes()).hexdigest() if sha256 else "",
    )
    for name, (_, sha256) in openimages_files.ADDRESSES.tables.items()
  }
  addresses = openimages_files.Addresses(
    tables=tables,
    masks=f"{server.url}/{{split}}-masks-{{key}}.zip",
    images=f"{server.url}/photos/{{split}}/{{image}}.jpg",
  )
  monkeypatch.setattr(openimages_files, "ADDRESSES", addresses)
  monkeypatch.setattr(download, "TIMEOUT", 0.4)
  return state


def _build(root, category="Penguin"):
  builder = openimages_builder(root, category=category, margin=0.0, download=True)
  return [example.name for example in builder.examples()], dict(builder.contents().skipped)


def _files(root):
  return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


ZIPS = ["train-masks-0.zip", "train-masks-1.zip", "validation-masks-f.zip"]
PHOTOS = ["photos/train/0a.jpg", "photos/train/1a.jpg", "photos/validation/fa.jpg"]
MASKS = [
  "masks/train/0a_m05z6w_b0.png", "masks/train/1a_m05z6w_b0.png",
  "masks/validation/fa_m05z6w_b0.png",
]  # fmt: skip
COMPLETE = sorted([*TABLES, *MASKS, "train/0a.jpg", "train/1a.jpg", "validation/fa.jpg"])


def test_all_that_the_filters_keep_is_fetched_once(served, tmp_path):
  root = tmp_path / "data" / "openimages"
  names, skipped = _build(root)
  assert names == ["0a_b0", "1a_b0", "fa_b0"]
  assert skipped == {
    "0b_b0": "its box is marked IsOccluded", "0d_b0": "its box is marked IsGroupOf"
  }  # fmt: skip
  assert served.asked() == sorted([*TABLES, *ZIPS, *PHOTOS])
  assert _files(root) == COMPLETE
  config = DataConfig(source="openimages", folder=str(root), category="Penguin", download=True)
  again = make_builder(config)
  assert [example.name for example in again.examples()] == names and served.asked() == []


def test_without_download_nothing_is_fetched(served, tmp_path):
  with pytest.raises(
    FileNotFoundError, match=r"boxable\.csv, no train.*SPLIT-masks-0\.zip.*amazon"
  ):
    openimages_builder(tmp_path / "data", category="Penguin", margin=0.0)
  assert served.asked() == [] and not (tmp_path / "data").exists()


def test_a_class_that_there_is_not_is_said_before_the_large_files(served, tmp_path):
  with pytest.raises(ValueError, match="'Pengiun' is none of the 3 classes"):
    _build(tmp_path / "data", "Pengiun")
  assert served.asked() == [TABLES[0]]


def test_files_of_the_newer_releases_are_not_fetched_beside(served, tmp_path):
  root = tmp_path / "data"
  root.mkdir()
  newer = {
    TABLES[0]: "oidv7-class-descriptions-boxable.csv",
    "train-annotations-bbox.csv": "oidv6-train-annotations-bbox.csv",
  }
  for old, new in newer.items():
    shutil.copy(served.fake.root / old, root / new)
  assert _build(root)[0] == ["0a_b0", "1a_b0", "fa_b0"]
  assert not set(newer) & set(served.asked())


def test_zip_files_in_the_folder_are_used_and_kept(served, tmp_path):
  root = tmp_path / "data"
  root.mkdir()
  for name in ZIPS:
    shutil.move(served.server.folder / name, root / name)
  assert _build(root)[0] == ["0a_b0", "1a_b0", "fa_b0"]
  assert _files(root) == sorted([*COMPLETE, *ZIPS])


@pytest.mark.parametrize(
  ("trouble", "reason"),
  [
    ("absent", "0a.jpg cannot be fetched: 404"),
    ("busy", "0a.jpg cannot be fetched: 503"),
    ("page", "is another kind of file: it begins with b'<html>"),
  ],
)
def test_an_image_that_fails_is_skipped_with_its_reason(served, tmp_path, trouble, reason):
  root, photo = tmp_path / "data", served.server.folder / "photos" / "train" / "0a.jpg"
  content = photo.read_bytes()
  if trouble == "absent":
    photo.unlink()
  elif trouble == "page":
    photo.write_bytes(b"<html>sign in</html>")
  else:
    served.server.busy.add("photos/train/0a.jpg")
  for _ in range(2):
    names, skipped = _build(root)
    assert names == ["1a_b0", "fa_b0"]
    assert skipped["0a_b0"].startswith("there is no train/0a.jpg: ") and reason in skipped["0a_b0"]
  # What the server does not have is not asked for again, unless the user wants it.
  lasting = trouble == "absent"
  assert served.asked().count("photos/train/0a.jpg") == (1 if lasting else 2)
  noted = ["unavailable.txt"] * lasting
  assert _files(root) == sorted([*set(COMPLETE) - {"train/0a.jpg"}, *noted])
  photo.write_bytes(content)
  served.server.busy.clear()
  if lasting:
    (root / "unavailable.txt").unlink()
  assert _build(root)[0] == ["0a_b0", "1a_b0", "fa_b0"]


@pytest.mark.parametrize("name", [TABLES[0], "train-annotations-bbox.csv", ZIPS[0]])
@pytest.mark.parametrize("trouble", ["absent", "silent", "cut", "page"])
def test_what_all_need_is_one_error_with_what_to_do(served, tmp_path, name, trouble):
  root = tmp_path / "data"
  if trouble == "absent":
    (served.server.folder / name).unlink()
  elif trouble == "page":
    (served.server.folder / name).write_bytes(b"<html>sign in</html>")
  else:
    getattr(served.server, trouble).add(name)
  start = time.monotonic()
  reason = r"is not complete in .*(cannot be fetched|another kind of file).*download\.html"
  with pytest.raises(OSError, match=reason):
    _build(root)
  assert time.monotonic() - start < 5.0
  assert name not in _files(root) and not list(root.glob(".*"))


def test_the_training_boxes_are_compared_with_their_checksum(served, tmp_path):
  path = served.server.folder / "train-annotations-bbox.csv"
  path.write_bytes(path.read_bytes() + b"\n")
  with pytest.raises(OSError, match="is not the published file"):
    _build(tmp_path / "data")


def test_a_silent_server_of_images_is_one_error_and_the_next_time_goes_on(
  served, tmp_path, monkeypatch
):
  root = tmp_path / "data"
  for number in range(100):
    served.fake.whole(f"2{number:03d}")
  served.publish()
  root.mkdir()  # of this file the server names the checksum, which was taken before
  shutil.copy(served.fake.root / "train-annotations-bbox.csv", root)
  served.server.silent.add("photos/")
  start = time.monotonic()
  with pytest.raises(
    OSError, match=r"is not complete in .*photos/train/\w+\.jpg cannot be fetched"
  ):
    _build(root)
  assert time.monotonic() - start < 3.0
  asked = [path for path in served.asked() if path.startswith("photos/")]
  assert 1 <= len(asked) <= openimages_files._WORKERS
  assert not list((root / "train").iterdir()) and not (root / "unavailable.txt").exists()
  served.server.silent.clear()
  # Now a busy machine may take its time.
  monkeypatch.setattr(download, "TIMEOUT", 20.0)
  names, _ = _build(root)
  assert len(names) == 103
  # Masks were there already, but those of the splits that had not been reached.
  assert [path for path in served.asked() if path.endswith(".zip")] == [ZIPS[2]]


@pytest.mark.parametrize("where", ["server", "disk"])
def test_a_damaged_zip_file_leaves_no_mask_of_it(served, tmp_path, where):
  root, path = tmp_path / "data", served.server.folder / ZIPS[0]
  root.mkdir()
  with zipfile.ZipFile(path) as archive:
    item = archive.getinfo("0a_m05z6w_b0.png")
  content = bytearray(path.read_bytes())
  content[item.header_offset + 30 + len(item.filename) + 20] ^= 0xFF
  path.write_bytes(content)
  if where == "disk":
    shutil.move(path, root / ZIPS[0])
  with pytest.raises((OSError, ValueError), match=r"train-masks-0\.zip .*Bad CRC"):
    _build(root)
  assert not [name for name in _files(root) if name.startswith("masks/")]
  assert not list(root.glob(".*"))


def test_a_mask_that_its_zip_file_lacks_is_skipped_and_the_file_not_fetched_again(served, tmp_path):
  with zipfile.ZipFile(served.server.folder / ZIPS[1], "w"):
    pass
  for _ in range(2):
    names, skipped = _build(tmp_path / "data")
    assert names == ["0a_b0", "fa_b0"]
    reason = "there is no masks/train/1a_m05z6w_b0.png: train-masks-1.zip holds no 1a_m05z6w_b0.png"
    assert skipped["1a_b0"] == reason
  asked = served.asked()
  assert asked.count(ZIPS[1]) == 1 and "photos/train/1a.jpg" not in asked


def test_names_that_lead_elsewhere_are_not_followed(served, tmp_path):
  root = tmp_path / "data"
  root.mkdir()
  served.fake.masks["train"][0][0] = "../../../elsewhere.png"
  served.fake.masks["train"][0][1] = served.fake.boxes["train"][0][0] = "../../elsewhere"
  served.fake.write()
  for name in TABLES:
    shutil.copy(served.fake.root / name, root / name)
  names, skipped = _build(root)
  assert names == ["1a_b0", "fa_b0"] and "there is no" in skipped["../../elsewhere_b0"]
  assert not [path for path in served.asked() if "elsewhere" in path]


def test_an_interruption_leaves_whole_files_alone(served, tmp_path, monkeypatch):
  root = tmp_path / "data"
  whole = pooch.HTTPDownloader.__call__

  def interrupted(self, url, output_file, *args):
    whole(self, url, output_file, *args)
    if url.endswith("1a.jpg"):
      path = pathlib.Path(output_file)
      path.write_bytes(path.read_bytes()[:100])
      raise KeyboardInterrupt

  monkeypatch.setattr(pooch.HTTPDownloader, "__call__", interrupted)
  with pytest.raises(KeyboardInterrupt):
    _build(root)
  assert set(_files(root)) <= set(COMPLETE) - {"train/1a.jpg"}
  monkeypatch.setattr(pooch.HTTPDownloader, "__call__", whole)
  assert _build(root)[0] == ["0a_b0", "1a_b0", "fa_b0"] and _files(root) == COMPLETE


def test_the_published_addresses_are_complete():
  addresses = dataclasses.asdict(openimages_files.ADDRESSES)
  assert len(addresses["tables"]) == 7
  assert (
    addresses["masks"].format(split="train", key="a").endswith("/v5/train-masks/train-masks-a.zip")
  )
  assert addresses["images"].format(split="test", image="0a").endswith("aws.com/test/0a.jpg")
