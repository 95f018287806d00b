"""Where PASCAL3D+'s files are, come from and go to; `pascal3d` reads them."""

import pathlib
from collections.abc import Iterable

from absl import logging

from umr_jax.data.download import Archive, unpack
from umr_jax.data.records import require_files

VOC = "PASCAL/VOCdevkit/VOC2012"

# No checksum is published: the file's own are compared, one for every file in it. Its size
# is that of the page that offers it.
RELEASE = Archive(
  name="PASCAL3D+_release1.1.zip",
  url="ftp://cs.stanford.edu/cs/cvgl/PASCAL3D+_release1.1.zip",
  sha256="",
  size="7.5 GB",
  content="PASCAL3D+_release1.1",
)
# Size and checksum are those of tensorflow-datasets' `voc`.
VOC_2012 = Archive(
  name="VOCtrainval_11-May-2012.tar",
  url="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
  sha256="e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
  size="2.0 GB",
  content="VOCdevkit/VOC2012",
)
SOURCE = (
  "Extract PASCAL3D+_release1.1.zip from https://cvgl.stanford.edu/projects/pascal3d.html; its "
  "lists and segmentations are VOC 2012's, VOCtrainval_11-May-2012.tar from "
  "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/, extracted into the folder PASCAL in it; or set "
  "data.download, with both archives beside the folder PASCAL3D+_release1.1, or without: then they "
  "are fetched."
)

# VOC's folder is reported to be in the release, too.
_RELEASED = ("Annotations", "Images", "CAD", "PASCAL")
_LISTS, _SEGMENTATIONS = "ImageSets/Main", "SegmentationObject"


def voc_lists(category: str) -> dict[str, str]:
  """VOC's lists of a category by their name in VOC, as paths below the release's folder.

  Args:
    category: one of PASCAL3D+'s.
  """
  return {split: f"{VOC}/{_LISTS}/{category}_{split}.txt" for split in ("train", "val")}


def image_folders(category: str) -> tuple[str, str]:
  """The folders of a category's images of ImageNet and of PASCAL.

  Args:
    category: one of PASCAL3D+'s.
  """
  return f"{category}_imagenet", f"{category}_pascal"


def prepare(root: pathlib.Path, category: str, *, download: bool) -> pathlib.Path:
  """The release's folder, of which also the one around it may be given, with all that is needed.

  Args:
    root: what the user named; it need not exist.
    category: one of PASCAL3D+'s.
    download: whether to make what is missing from the archives, or to fetch these.

  Raises:
    FileNotFoundError: when files are missing, with where they can be had.
    OSError: when an archive can neither be found nor fetched; the message names the remedy.
    ValueError: when one is damaged, or a folder is there in part.
  """
  known = any((root / folder).is_dir() for folder in (*_RELEASED, "Masks"))
  if root.name != RELEASE.content and not known:
    root = root / RELEASE.content
  if download:
    _unpack_missing(root, category)
  kinds, folders = ("Annotations", "Images"), image_folders(category)
  needed = [f"{kind}/{folder}" for kind in kinds for folder in folders]
  needed += [f"CAD/{category}.mat", *voc_lists(category).values()]
  require_files(root, needed, name="PASCAL3D+", source=SOURCE)
  return root


def _unpack_missing(root: pathlib.Path, category: str) -> None:
  """Makes what is missing of the release and of VOC 2012 from their archives, or fetches these.

  The archives may lie beside PASCAL3D+_release1.1, or in a release's folder with another name. The
  release has no published checksum: a damaged one is noticed by the zip file's own, for what is
  unpacked. No silhouettes of ImageNet's images (Masks/) are published.

  Args:
    root: the release's folder.
    category: whose lists are needed.

  Raises:
    OSError: when an archive can neither be found nor fetched; the message names the remedy.
    ValueError: when one is damaged, or a folder is there in part.
  """
  home = root.parent if root.name == RELEASE.content else root
  try:
    if missing := [folder for folder in _RELEASED[:3] if not (root / folder).is_dir()]:
      # A VOC that is there already is kept.
      missing += [] if (root / "PASCAL").exists() else ["PASCAL"]
      contents = {f"{RELEASE.content}/{folder}": root / folder for folder in missing}
      unpack(RELEASE, home, contents=contents, optional=[f"{RELEASE.content}/PASCAL"])
    lists = all((root / path).exists() for path in voc_lists(category).values())
    segmentations = (root / VOC / _SEGMENTATIONS).is_dir()
    if missing := [_LISTS] * (not lists) + [_SEGMENTATIONS] * (not segmentations):
      contents = {f"{VOC_2012.content}/{part}": root / VOC / part for part in missing}
      unpack(VOC_2012, home, contents=contents)
  except OSError as error:
    raise OSError(f"PASCAL3D+ is not complete in {root}: {error}. {SOURCE}") from error


def list_images(root: pathlib.Path, folders: Iterable[str]) -> list[pathlib.Path]:
  """The images and every silhouette that there is; a folder without silhouettes is logged.

  Args:
    root: the release's folder.
    folders: of the images, such as car_imagenet.
  """
  paths = list((root / VOC / _SEGMENTATIONS).glob("*.png"))
  for folder in folders:
    masks = root / "Masks" / folder
    paths += [*(root / "Images" / folder).iterdir(), *masks.glob("*.png")]
    if not masks.is_dir():
      logging.warning(
        "There is no %s: images of %s that VOC 2012 has not segmented (all of ImageNet's) are "
        "left out. Make their silhouettes with an instance segmentation network and store them "
        "there as NAME_K.png for object K.",
        masks,
        folder,
      )
  return paths
