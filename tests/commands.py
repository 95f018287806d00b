"""Commands run as users run them, without importing the libraries anew for each.

A process that has imported what the commands need forks for each of them: jax has no threads
before its first computation, so what is forked must end before one, as help and refusals do.
"""

import functools
import json
import os
import subprocess
import sys
import tempfile
from typing import NamedTuple

_SERVER = """
import importlib, json, os, runpy, sys, traceback

for name in ("umr_jax.em.improve_parts", "umr_jax.em.run", "umr_jax.viz.gallery"):
  importlib.import_module(name)
for line in sys.stdin:
  sys.argv = json.loads(line)
  folder, stdout, stderr = sys.argv[:3]
  process = os.fork()
  if process == 0:
    os.dup2(os.open(stdout, os.O_WRONLY), 1)
    os.dup2(os.open(stderr, os.O_WRONLY), 2)
    os.chdir(folder)
    sys.argv = sys.argv[3:]
    code = 0
    try:
      runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    except SystemExit as error:
      code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
      traceback.print_exc()
      code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
  print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""


def one_device_flags() -> str:
  """XLA_FLAGS of a process that has one device and compiles as quickly as the tests do."""
  flags = os.environ["XLA_FLAGS"].split()
  return " ".join(flag for flag in flags if "device_count" not in flag)


class Done(NamedTuple):
  """What a command left behind: its exit code and what it printed."""

  returncode: int
  stdout: str
  stderr: str


@functools.cache
def _server() -> subprocess.Popen[str]:
  return subprocess.Popen(
    [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
  )


def command(module: str, *arguments: str) -> Done:
  """`python -m module arguments...`, for a command that ends before it computes anything."""
  server = _server()
  assert server.stdin is not None and server.stdout is not None
  with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as err:
    server.stdin.write(json.dumps([os.getcwd(), out.name, err.name, module, *arguments]) + "\n")
    server.stdin.flush()
    return Done(int(server.stdout.readline()), out.read(), err.read())
