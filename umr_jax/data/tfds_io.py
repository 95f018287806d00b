"""How an `Example` is stored: one tensorflow-datasets schema, its writer and its reader.

tensorflow-datasets is used without TensorFlow, which works for the array_record format alone.
"""

import contextlib
import io
import pathlib
import threading
from collections.abc import Iterable, Iterator
from typing import TypedDict

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from umr_jax.data.example import Example
from umr_jax.data.image_files import to_bytes

# Part of a prepared data set's fingerprint: raise it whenever what is stored would change.
FORMAT_VERSION = 1

_RECORDS = "examples"
_JPEG_QUALITY = 95


_Fields = dict[str, str | bytes | int | np.ndarray]  # of an example, as they are written


class _Record(TypedDict):
  """The fields of a stored example, as they are read."""

  name: bytes
  image: bytes
  mask: bytes
  parts: bytes
  num_parts: int
  box: np.ndarray
  keypoints: np.ndarray
  camera: np.ndarray
  shape: bytes


class CorruptDataError(OSError):
  """A prepared data set on disk cannot be read."""


class _ExampleBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
  """Writes a stream of examples, in its order, as one array_record split.

  Which example is for training and which for testing is kept beside the records: it is only known
  once every file of a user's folder has been read.
  """

  VERSION = tfds.core.Version(f"{FORMAT_VERSION}.0.0")
  name = "umr_examples"

  def __init__(self, examples: Iterable[Example], **kwargs: str):
    self._examples = examples
    super().__init__(**kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    features = tfds.features.FeaturesDict(
      {
        "name": tfds.features.Text(),
        "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
        "mask": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
        # The P + 1 maps one above the other; one pixel where there are none.
        "parts": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
        "num_parts": tfds.features.Scalar(dtype=np.int32),
        "box": tfds.features.Tensor(shape=(4,), dtype=np.float32),
        "keypoints": tfds.features.Tensor(shape=(None, 3), dtype=np.float32),
        # NaN where there is none.
        "camera": tfds.features.Tensor(shape=(7,), dtype=np.float32),
        "shape": tfds.features.Text(),
      }
    )
    return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

  def _split_generators(
    self, dl_manager: tfds.download.DownloadManager
  ) -> dict[str, Iterator[tuple[int, _Fields]]]:
    del dl_manager
    return {_RECORDS: self._generate_examples()}

  def _generate_examples(self) -> Iterator[tuple[int, _Fields]]:
    for key, example in enumerate(self._examples):
      yield key, _encode(example)


def write_examples(examples: Iterable[Example], directory: pathlib.Path) -> None:
  """Writes examples as a prepared data set.

  Args:
    examples: in the order of the records.
    directory: which must be new or empty.
  """
  # tensorflow-datasets prints to standard output, which belongs to the launcher's own results.
  with contextlib.redirect_stdout(io.StringIO()), _no_progress_bars():
    builder = _ExampleBuilder(examples, data_dir=str(directory), file_format="array_record")
    # Nothing is ever downloaded: the examples are made here.
    offline = tfds.download.DownloadConfig(try_download_gcs=False)
    builder.download_and_prepare(download_config=offline)


class ExampleReader:
  """Random access to what `write_examples` wrote; may be used by many threads.

  Raises:
    CorruptDataError: on opening or reading damaged files.
  """

  def __init__(self, directory: pathlib.Path):
    self._directory = directory
    self._lock = threading.Lock()
    version = directory / _ExampleBuilder.name / str(_ExampleBuilder.VERSION)
    skip = {field: tfds.decode.SkipDecoding() for field in ("image", "mask", "parts")}
    try:
      builder = tfds.builder_from_directory(str(version))
      self._source = builder.as_data_source(split=_RECORDS, decoders=skip)
      self._length = len(self._source)
    except Exception as error:
      # array_record and tensorflow-datasets raise whatever error their parsers hit first.
      raise CorruptDataError(self._complaint("cannot be opened", error)) from error

  def __len__(self) -> int:
    return self._length

  def __getitem__(self, index: int) -> Example:
    try:
      with self._lock:
        record = self._source[index]
      return _decode(record)
    except Exception as error:
      # A truncated file shows up as a PIL or a protobuf error, a damaged one as RuntimeError.
      raise CorruptDataError(self._complaint(f"is damaged at item {index}", error)) from error

  def _complaint(self, what: str, error: Exception) -> str:
    return (
      f"the prepared data set in {self._directory} {what} ({type(error).__name__}: {error}); "
      "delete that folder to have it prepared again"
    )


def _encode(example: Example) -> _Fields:
  parts, camera, keypoints = example.parts, example.camera, example.keypoints
  num_parts = 0 if parts is None else parts.shape[-1]
  stacked = np.zeros((1, 1)) if parts is None else np.concatenate(list(np.moveaxis(parts, -1, 0)))
  return {
    "name": example.name,
    "image": _encode_image(example.image, "JPEG", quality=_JPEG_QUALITY, subsampling=0),
    "mask": _encode_image(to_bytes(example.mask), "PNG", compress_level=3),
    "parts": _encode_image(to_bytes(stacked), "PNG", compress_level=3),
    "num_parts": num_parts,
    "box": np.asarray(example.box, np.float32),
    "keypoints": np.zeros((0, 3), np.float32) if keypoints is None else keypoints,
    "camera": np.full(7, np.nan, np.float32) if camera is None else camera,
    "shape": example.shape or "",
  }


def _decode(record: _Record) -> Example:
  image = _decode_image(record["image"])
  mask = _decode_image(record["mask"]).astype(np.float32) / np.float32(255.0)
  parts = None
  if (num_parts := int(record["num_parts"])) > 0:
    stacked = _decode_image(record["parts"]).reshape(num_parts, *mask.shape)
    parts = np.moveaxis(stacked, 0, -1).astype(np.float32)
    # Rounding to bytes moves a pixel's sum a little away from one.
    parts = parts / np.maximum(parts.sum(axis=-1, keepdims=True), np.float32(1.0 / 255.0))
  keypoints, camera = np.asarray(record["keypoints"]), np.asarray(record["camera"])
  x0, y0, x1, y1 = (float(value) for value in record["box"])
  return Example(
    name=record["name"].decode(),
    image=image,
    mask=mask,
    box=(x0, y0, x1, y1),
    parts=parts,
    keypoints=keypoints if keypoints.shape[0] > 0 else None,
    camera=camera if np.isfinite(camera).all() else None,
    shape=record["shape"].decode() or None,
  )


def _encode_image(pixels: np.ndarray, file_format: str, **options: int) -> bytes:
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, file_format, **options)
  return buffer.getvalue()


def _decode_image(encoded: bytes) -> np.ndarray:
  with Image.open(io.BytesIO(encoded)) as image:
    return np.asarray(image)


@contextlib.contextmanager
def _no_progress_bars() -> Iterator[None]:
  tfds.disable_progress_bar()
  try:
    yield
  finally:
    tfds.enable_progress_bar()
