"""What every command shares: flags in, one sentence and an exit code out."""

import hashlib
import json
import os
import pathlib
import platform
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from umr_jax.config.build import from_dict
from umr_jax.config.presets import DEFAULT_PRESET, PRESETS, config_file, preset_names
from umr_jax.config.settings import Config
from umr_jax.errors import NonFiniteError, Preempted, UsageError

Number = TypeVar("Number", int, float)
EXIT_ERROR, EXIT_USAGE, EXIT_PREEMPTED = 1, 2, 75
# The end of a message that another library wrote, and that may not say enough.
_MORE = " (--verbosity=1 shows where)"


def define_config() -> flags.FlagHolder:
  """The flag `--config`: a preset or a file, whose settings `--config.GROUP.NAME=VALUE` changes."""
  names = ", ".join(PRESETS)
  return config_flags.DEFINE_config_file(
    "config", None, f"A preset ({names}; the last two with :CATEGORY, such as :cub) or a file."
  )


def given_config() -> Config:
  """The configuration that the flags describe.

  Raises:
    ValueError: if it cannot run.
  """
  return from_dict(dict(flags.FLAGS.config.to_dict()))


def config_name() -> str:
  """The configuration's name: a preset, its category after a dash, or a file's name."""
  path, _, name = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
  return name.replace(":", "-") if name in preset_names() else pathlib.Path(path).stem


def numbers(flag: flags.FlagHolder, kind: Callable[[str], Number]) -> list[Number]:
  """The values of a list's flag as numbers above zero.

  Args:
    flag: from `flags.DEFINE_list`.
    kind: int or float.

  Raises:
    UsageError: for anything else in the list, or nothing, naming the flag.
  """
  try:
    found = [kind(value) for value in flag.value]
  except ValueError:
    found = []
  if not found or not all(number > 0 for number in found):
    whole = "whole " if kind is int else ""
    raise UsageError(f"--{flag.name}={','.join(flag.value)}: expected {whole}numbers above 0")
  return found


def _with_preset_paths(argv: Sequence[str]) -> list[str]:
  """The command line with a preset's name replaced by its file; the quickstart's where none is."""
  new = list(argv)
  given = any(word.split("=")[0] in ("--config", "-config") for word in argv)
  if "config" in flags.FLAGS and not given:
    # Before the overrides of its settings. As the flag's default it would be read when the flag is
    # defined, with the overrides, where nobody can tell a wrong one in a sentence.
    return [new[0], f"--config={config_file(DEFAULT_PRESET)}", *new[1:]]
  for i, word in enumerate(argv):
    for flag in ("--config=", "-config="):
      if word.startswith(flag):
        new[i] = flag + config_file(word[len(flag) :])
    if word in ("--config", "-config") and i + 1 < len(argv):
      new[i + 1] = config_file(argv[i + 1])
  return new


def _parse(argv: Sequence[str]) -> list[str]:
  try:
    rest = flags.FLAGS(_with_preset_paths(argv))
  except (flags.Error, UsageError, ValueError, AttributeError, KeyError) as error:
    _stop(" ".join(str(error).split()), EXIT_USAGE)
  except Exception as error:
    # A config file is a program: it can fail in any way, and its author needs to know where.
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = "" if isinstance(error, SyntaxError) else f" ({place.filename}, line {place.lineno})"
    _stop(f"the config file fails: {type(error).__name__}: {error}{where}", EXIT_USAGE)
  if len(rest) > 1:
    _stop(f"unexpected arguments: {' '.join(rest[1:])}; every setting is a --flag", EXIT_USAGE)
  return rest


def _stop(message: str, code: int) -> None:
  sys.stderr.write(f"error: {message}\n")
  sys.exit(code)


def compilation_cache() -> pathlib.Path:
  """Where compiled functions wait for the next launch, apart for every kind of processor.

  They are machine code: a home directory shared by unlike hosts must not mix them up.
  """
  cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
  described = [platform.machine(), platform.processor()]
  cpuinfo = pathlib.Path("/proc/cpuinfo")
  if cpuinfo.is_file():
    lines = cpuinfo.read_text().splitlines()
    described += sorted({line for line in lines if line.startswith(("flags", "Features", "model"))})
  name = hashlib.sha256("\n".join(described).encode()).hexdigest()[:12]
  return cache / "umr_jax" / "compiled" / name


def _keep_compiled() -> None:
  """The next launch reads compiled functions back; the user's own setting comes first."""
  if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    jax.config.update("jax_compilation_cache_dir", str(compilation_cache()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def launch(
  main: Callable[[], object], *, doc: str | None = None, program_flags: Sequence[str] = ()
) -> None:
  """Parses the flags, runs `main`, prints its result under --json, and exits with the right code.

  A program that has printed its own lines of JSON returns None.

  0 is success, 1 an error reported in one sentence, 2 a wrong command line, 75 a run
  that was interrupted and saved itself.

  Args:
    main: takes what it needs from the flags; what it returns goes to JSON.
    doc: the text of --help; default the program's own.
    program_flags: names of flags that are not defined in the program's own file.
  """
  flags.DEFINE_bool("json", False, "Print the result as one line of JSON on standard output.")
  # A flag is part of a program's --help where its main module has it.
  for name in (*program_flags, "json"):
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])
  if {"--help", "-help", "-h"} & set(sys.argv[1:]):
    # absl's own --help lists every library's flags, too, and exits with 1.
    text = doc or sys.modules["__main__"].__doc__ or ""
    sys.stdout.write(f"{text}\nflags:\n{flags.FLAGS.main_module_help()}\n")
    sys.exit(0)
  # config_flags reads overrides from sys.argv itself.
  try:
    sys.argv[:] = _with_preset_paths(sys.argv)
  except UsageError as error:
    _stop(str(error), EXIT_USAGE)
  app.run(lambda argv: _guarded(main), flags_parser=_parse)


def _is_written_here(error: Exception) -> bool:
  """Whether a `raise` of this project made an error: a sentence that needs no explanation."""
  place = traceback.extract_tb(error.__traceback__)[-1]
  package = pathlib.Path(__file__).parent
  ours = (package, package.parent / "experiments")
  written = any(pathlib.Path(place.filename).is_relative_to(folder) for folder in ours)
  return written and (place.line or "").startswith("raise ")


def _guarded(main: Callable[[], object]) -> None:
  """Runs a program whose flags are parsed, and turns what it raises into an exit code."""
  if not flags.FLAGS["verbosity"].present:
    logging.set_verbosity(logging.INFO)
  _keep_compiled()
  try:
    result = main()
  except Preempted as stop:
    _stop(str(stop), EXIT_PREEMPTED)
  except UsageError as error:
    _stop(str(error), EXIT_USAGE)
  except (ValueError, OSError, NonFiniteError) as error:
    logging.debug("Where it happened", exc_info=True)
    _stop(f"{error}{'' if _is_written_here(error) else _MORE}", EXIT_ERROR)
  if flags.FLAGS.json and result is not None:
    sys.stdout.write(json.dumps(result) + "\n")
