"""Published weights from files: safetensors and both formats of PyTorch, without PyTorch.

A .pth file is a pickle, which can run any program when it is loaded. The unpickler here allows
tensors and refuses all else.
"""

import io
import os
import pathlib
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from typing import IO, Any

import numpy as np

RESNET18_FILES = (
  "torchvision's resnet18-f37072fd.pth (https://download.pytorch.org/models/resnet18-f37072fd.pth) "
  "or timm's model.safetensors (https://huggingface.co/timm/resnet18.a1_in1k)"
)


def weight_file(
  path: str | os.PathLike[str],
  *,
  obtain: str = RESNET18_FILES,
  otherwise: str = "set the weights to 'none' to start from random parameters",
) -> pathlib.Path:
  """The file that a setting names.

  Args:
    path: the file; `~` and environment variables are expanded.
    obtain: where the file can be downloaded, for the error.
    otherwise: what to do without it, for the error.

  Raises:
    FileNotFoundError: where there is no such file.
  """
  file = pathlib.Path(os.path.expandvars(os.path.expanduser(path)))
  if not file.is_file():
    raise FileNotFoundError(
      f"found no weight file at {file}. Download {obtain} and give its path, or {otherwise}"
    )
  return file


def read_torch_file(
  path: str | os.PathLike[str],
  **missing: str,
) -> dict[str, np.ndarray]:
  """Reads a PyTorch state dict: a .safetensors file, or a .pth file of any PyTorch.

  Args:
    path: the file; `~` and environment variables are expanded.
    **missing: `obtain` and `otherwise` of `weight_file`.

  Returns:
    Arrays by name, without a leading "module." or "model." that training scripts leave.

  Raises:
    FileNotFoundError: where there is no such file.
    ValueError: for a file of another format, or that names anything but tensors;
      `pickle.UnpicklingError` never escapes.
  """
  file = weight_file(path, **missing)
  if file.suffix == ".safetensors":
    return _strip(_read_safetensors(file))
  return _strip(read_torch_pickle(file))


def convolution_kernel(weight: np.ndarray) -> np.ndarray:
  """A PyTorch kernel [out, in, row, column] as [row, column, in, out], float32."""
  return np.ascontiguousarray(weight.transpose(2, 3, 1, 0), np.float32)


def _strip(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Drops prefixes that every name shares."""
  for prefix in ("module.", "model."):
    if state and all(name.startswith(prefix) for name in state):
      state = {name.removeprefix(prefix): value for name, value in state.items()}
  return state


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
  import safetensors
  import safetensors.numpy

  try:
    return safetensors.numpy.load_file(path)
  except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
    raise ValueError(f"{path} is damaged or no safetensors file: {error}") from error


# Storage classes a file may name, and what they hold.
_STORAGES = {
  "FloatStorage": np.float32,
  "DoubleStorage": np.float64,
  "HalfStorage": np.float16,
  "LongStorage": np.int64,
  "IntStorage": np.int32,
  "ShortStorage": np.int16,
  "CharStorage": np.int8,
  "ByteStorage": np.uint8,
  "BoolStorage": np.bool_,
}
# The number that the format before PyTorch 1.6 starts with, and its only version.
_OLD_MAGIC = 0x1950A86A20F9469CFC6C
_OLD_VERSION = 1001


def read_torch_pickle(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads a state dict that `torch.save` wrote: a zip archive, or the format before PyTorch 1.6.

  Args:
    path: an existing file.

  Returns:
    Arrays by name. Where the file holds a training checkpoint, its "state_dict" or "model".

  Raises:
    ValueError: for a file of another format, a damaged one, or one that names anything but tensors.
  """
  try:
    content = _read_zip(path) if zipfile.is_zipfile(path) else _read_old(path)
  except ValueError:
    raise
  except Exception as error:  # A damaged pickle can raise anything.
    raise ValueError(f"{path} is damaged: {type(error).__name__}: {error}") from error
  for key in ("state_dict", "model"):
    if isinstance(content, dict) and isinstance(content.get(key), dict):
      content = content[key]
  if not isinstance(content, dict):
    raise ValueError(f"{path} holds a {type(content).__name__}; expected a state dict")
  values = {k: v.data if isinstance(v, _Parameter) else v for k, v in content.items()}
  # The old format's tensors are views of storages, which were read after them.
  state = {k: v.copy() for k, v in values.items() if isinstance(v, np.ndarray)}
  if not state:
    raise ValueError(f"{path} holds no tensors; expected a state dict")
  return state


def _read_zip(path: pathlib.Path) -> Any:
  """The pickled object of a zip archive, which holds every storage as a file of its own."""
  with zipfile.ZipFile(path) as archive:
    pickles = [name for name in archive.namelist() if name.endswith("data.pkl")]
    if len(pickles) != 1:
      raise ValueError(f"{path} is a zip archive without a data.pkl; expected a PyTorch file")
    folder = pickles[0].removesuffix("data.pkl")

    def load(key: str, dtype: np.dtype, count: int) -> np.ndarray:
      values = np.frombuffer(archive.read(f"{folder}data/{key}"), dtype)
      if len(values) < count:
        raise ValueError(f"storage {key} holds {len(values)} values; expected {count}")
      return values

    return _Unpickler(io.BytesIO(archive.read(pickles[0])), load).load()


def _read_old(path: pathlib.Path) -> Any:
  """The pickled object of the old format: pickles one after another, then the storages' bytes."""
  size = path.stat().st_size
  storages: dict[str, np.ndarray] = {}

  def reserve(key: str, dtype: np.dtype, count: int) -> np.ndarray:
    if not 0 <= count * dtype.itemsize <= size:
      raise ValueError(f"{path}: storage {key} would hold {count} values, more than the file has")
    storages[key] = np.zeros(count, dtype)
    return storages[key]

  with path.open("rb") as file:
    if not _starts_old(file):
      raise ValueError(
        f"{path} is neither a zip archive, as PyTorch writes since version 1.6, nor of the format "
        "before that; expected a .pth file that torch.save wrote, or a .safetensors file"
      )
    version, system = (_Unpickler(file, reserve).load() for _ in range(2))
    if version != _OLD_VERSION or not system.get("little_endian", True):
      raise ValueError(f"{path} has version {version}, {system}; expected {_OLD_VERSION}, little")
    content = _Unpickler(file, reserve).load()
    for key in _Unpickler(file, reserve).load():
      if key not in storages:
        raise ValueError(f"{path} lists storage {key}, which no tensor uses; expected one for each")
      _fill_storage(file, storages.pop(key), f"{path}: storage {key}")
  if storages:
    raise ValueError(f"{path} lacks the storages {', '.join(sorted(storages))}; it is damaged")
  return content


def _starts_old(file: IO[bytes]) -> bool:
  """Whether a file's first pickle is the old format's number; leaves the file behind it."""
  try:
    return _Unpickler(file, _no_storage).load() == _OLD_MAGIC
  except Exception:  # Bytes that are no pickle can raise anything.
    return False


def _no_storage(key: str, dtype: np.dtype, count: int) -> np.ndarray:
  raise ValueError(f"found storage {key} in a file's head; expected a number")


def _fill_storage(file: IO[bytes], storage: np.ndarray, what: str) -> None:
  """Reads one storage of the old format: its length, then its values."""
  count = int.from_bytes(file.read(8), "little", signed=True)
  data = file.read(storage.nbytes)
  if count != len(storage) or len(data) != storage.nbytes:
    raise ValueError(
      f"{what} holds {count} values in {len(data)} bytes; expected {len(storage)} in "
      f"{storage.nbytes}. The file is damaged"
    )
  storage[:] = np.frombuffer(data, storage.dtype)


class _Parameter:
  """The container of a state dict's tensors in PyTorch before 0.4."""

  data: Any = None

  def __new__(cls, data: Any = None, *_: Any) -> "_Parameter":
    self = super().__new__(cls)
    self.data = data
    return self

  def __setstate__(self, state: Any) -> None:
    # (tensor, ...) in the earliest files; else flags, which an array has no use for.
    if isinstance(state, tuple) and state and isinstance(state[0], np.ndarray):
      self.data = state[0]


class _Unpickler(pickle.Unpickler):
  """Loads tensors as arrays and refuses everything else."""

  def __init__(self, file: IO[bytes], load: Callable[[str, np.dtype, int], np.ndarray]):
    super().__init__(file)
    self._load = load
    self._loaded: dict[str, np.ndarray] = {}

  def find_class(self, module: str, name: str) -> Any:
    if (module, name) == ("collections", "OrderedDict"):
      return OrderedDict
    if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
      return _rebuild_tensor
    if (module, name) == ("torch._utils", "_rebuild_parameter"):
      return lambda tensor, *_: tensor
    if (module, name) == ("torch.nn.parameter", "Parameter"):
      return _Parameter
    if module == "torch" and name in _STORAGES:
      return _STORAGES[name]
    raise ValueError(
      f"the file names {module}.{name}, which a state dict does not need and which could run code; "
      "refused. Save the state dict alone: torch.save(model.state_dict(), f)"
    )

  def persistent_load(self, pid: Any) -> np.ndarray:
    kind, dtype, key, _, count, *view = pid
    if kind != "storage":
      raise ValueError(f"found a stored {kind!r}; expected a storage")
    if view not in ([], [None]):
      raise ValueError(f"found a view {view} of storage {key}; expected whole storages")
    if key not in self._loaded:
      self._loaded[key] = self._load(key, np.dtype(dtype).newbyteorder("<"), count)
    return self._loaded[key]


def _rebuild_tensor(
  storage: np.ndarray, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> np.ndarray:
  """A view of a tensor's part of a storage; what PyTorch pickles a tensor as."""
  steps = [(n - 1) * s for n, s in zip(size, stride, strict=True)]
  empty = 0 in size
  if offset < 0 or min(steps, default=0) < (-1 if empty else 0):
    raise ValueError(
      f"found a tensor at offset {offset} with strides {stride}; expected no negative"
    )
  if not empty and offset + sum(steps) >= len(storage):
    raise ValueError(f"found a tensor of shape {size} that reaches beyond its storage")
  if empty:
    return np.zeros(size, storage.dtype)
  strides = [s * storage.itemsize for s in stride]
  return np.lib.stride_tricks.as_strided(storage[offset:], size, strides)
