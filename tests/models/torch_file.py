"""Writes state dicts as PyTorch's zip format has them, without PyTorch."""

import io
import pickle
import zipfile
from collections import OrderedDict
from typing import ClassVar

import safetensors.numpy


class _Global:
  """Stands for a name that the pickle refers to and that does not exist here."""

  def __init__(self, module, name):
    self.module, self.name = module, name


class _Storage:
  def __init__(self, key, array):
    self.key, self.array = key, array


class _Tensor:
  def __init__(self, key, array):
    self.storage = _Storage(key, array)


class _Pickler(pickle._Pickler):
  """The pure Python pickler, whose way of writing names can be replaced."""

  dispatch: ClassVar[dict] = dict(pickle._Pickler.dispatch)

  def save_named(self, value):
    self.write(pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode())
    self.memoize(value)

  dispatch[_Global] = save_named

  def persistent_id(self, value):
    if not isinstance(value, _Storage):
      return None
    kind = {"float32": "FloatStorage", "int64": "LongStorage"}[value.array.dtype.name]
    return ("storage", _Global("torch", kind), value.key, "cpu", value.array.size)

  def save_tensor(self, value):
    array = value.storage.array
    strides = tuple(s // array.itemsize for s in array.strides)
    arguments = (value.storage, 0, array.shape, strides, False, OrderedDict())
    self.save(_Global("torch._utils", "_rebuild_tensor_v2"))
    self.save(arguments)
    self.write(pickle.REDUCE)

  dispatch[_Tensor] = save_tensor


def write_torch_file(path, state, *, extra=None):
  """Writes arrays as a .pth file; `extra` (module, name) is one more global in it."""
  buffer = io.BytesIO()
  tensors = OrderedDict((k, _Tensor(str(i), v)) for i, (k, v) in enumerate(state.items()))
  if extra is not None:
    tensors["extra"] = _Global(*extra)
  _Pickler(buffer, protocol=2).dump(tensors)
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("archive/data.pkl", buffer.getvalue())
    archive.writestr("archive/version", "3\n")
    for i, value in enumerate(state.values()):
      archive.writestr(f"archive/data/{i}", value.tobytes(order="A"))


class _OldPickler(_Pickler):
  """Storages carry one more field before PyTorch 1.6."""

  def persistent_id(self, value):
    found = super().persistent_id(value)
    return found and (*found, None)


def write_old_torch_file(path, state, *, extra=None):
  """Writes arrays as PyTorch before 1.6 did; `extra` as for `write_torch_file`."""
  tensors = OrderedDict((k, _Tensor(str(i), v)) for i, (k, v) in enumerate(state.items()))
  if extra is not None:
    tensors["extra"] = _Global(*extra)
  with open(path, "wb") as file:
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    for head in (0x1950A86A20F9469CFC6C, 1001, system):
      pickle.dump(head, file, protocol=2)
    _OldPickler(file, protocol=2).dump(tensors)
    pickle.dump([str(i) for i in range(len(state))], file, protocol=2)
    for value in state.values():
      file.write(value.size.to_bytes(8, "little"))
      file.write(value.tobytes(order="A"))


def write_weights(path, state):
  """Writes a .pth or a .safetensors file."""
  if path.suffix == ".pth":
    write_torch_file(path, state)
  else:
    safetensors.numpy.save_file(state, path)
  return path
