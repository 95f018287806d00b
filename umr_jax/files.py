"""Writing files so that a reader finds the old one or the new one, never half of one."""

import os
import pathlib


def write_bytes(path: pathlib.Path, content: bytes) -> None:
  """Writes a file atomically, making its folder.

  Args:
    path: of the file.
    content: all of it.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
  try:
    with temporary.open("wb") as file:
      file.write(content)
      file.flush()
      # Or after a power cut the new name may hold nothing.
      os.fsync(file.fileno())
    temporary.replace(path)
  finally:
    temporary.unlink(missing_ok=True)


def write_text(path: pathlib.Path, content: str) -> None:
  """Writes a UTF-8 file atomically, making its folder.

  Args:
    path: of the file.
    content: all of it.
  """
  write_bytes(path, content.encode("utf-8"))
