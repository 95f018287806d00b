"""Imports point one way: what may import what, checked on the source of every file."""

import ast
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parent.parent

# The rooms, and beside each the rooms it may import, besides itself and the base. Every room is
# below those that name it, so there is no circle.
BASE = ("checking", "types", "errors", "files", "random", "progress")
# Files beside the rooms that only programs import, and the programs.
PROGRAMS = ("launch", "cli", "experiments")
CORE = (*BASE, "config", "geometry")
NETWORK = (*CORE, "render", "models", "losses")
SERVING = ("data", "predict", "eval", "viz")
ROOMS: dict[str, tuple[str, ...]] = {
  **{name: BASE for name in BASE},
  "config": BASE,
  "geometry": BASE,
  "render": (*BASE, "geometry"),
  "models": CORE,
  "losses": (*CORE, "render", "models"),
  "launch": (*BASE, "config"),
  # The loading of data knows no model, ...
  "data": CORE,
  # ... what serves a trained model knows no training, ...
  "predict": (*NETWORK, "data"),
  "eval": (*NETWORK, "data", "predict"),
  "viz": (*NETWORK, "data", "predict", "eval"),
  # ... and training goes by stages.
  "train": (*NETWORK, "data"),
  "parts": (*NETWORK, "data", "train"),
  "init": (*NETWORK, "data", "train", "parts"),
  "em": (*NETWORK, *SERVING, "train", "parts", "init"),
  "cli": (*BASE, "config", "launch", *SERVING, "train", "parts", "init", "em"),
  "experiments": (*NETWORK, *SERVING, "train", "parts", "init", "em", "launch", "cli"),
}
# What the renderer may load, besides the standard library and its own layers.
RENDER_ROOTS = {"jax", "numpy", "jaxtyping", "beartype"}
PMAP_FILES = {"umr_jax/train/parallel.py"}


def unit_of(module: str) -> str | None:
  """The unit of a dotted module, "" for the bare package, None for what is not ours."""
  root, *rest = module.split(".")
  if root == "experiments":
    return "experiments"
  if root != "umr_jax":
    return None
  return rest[0] if rest else ""


def imported_modules(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
  """(line, dotted module) of every import in a file, wherever it stands.

  Args:
    tree: the parsed file.
    package: the dotted package that the file lies in, for relative imports.
  """
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      for name in node.names:
        yield node.lineno, name.name
    elif isinstance(node, ast.ImportFrom):
      module = node.module or ""
      if node.level:
        parents = package.split(".")
        parents = parents[: len(parents) - node.level + 1]
        module = ".".join([*parents, *([node.module] if node.module else [])])
      for name in node.names:
        # `from umr_jax import predict` and `from umr_jax.predict import x` name the same room.
        yield node.lineno, f"{module}.{name.name}" if module == "umr_jax" else module
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
      constants = [argument for argument in node.args if isinstance(argument, ast.Constant)]
      yield from ((node.lineno, str(constant.value)) for constant in constants[:1])


def names(tree: ast.AST, word: str) -> Iterator[int]:
  """The lines whose code names `word` exactly."""
  for node in ast.walk(tree):
    found = (
      (isinstance(node, ast.Name) and node.id == word)
      or (isinstance(node, ast.Attribute) and node.attr == word)
      or (isinstance(node, ast.ImportFrom) and any(name.name == word for name in node.names))
      or (isinstance(node, ast.Constant) and node.value == word)
    )
    if found:
      yield node.lineno


def violations(root: pathlib.Path) -> list[str]:
  """Everything in a checkout that breaks a rule of this file, as `path:line: what`."""
  found: list[str] = []
  for path in sorted([*root.glob("umr_jax/**/*.py"), *root.glob("experiments/**/*.py")]):
    name = path.relative_to(root).as_posix()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if name not in PMAP_FILES:
      found += [f"{name}:{line}: names pmap" for line in names(tree, "pmap")]
    if name == "umr_jax/__init__.py":
      continue  # its public names load lazily, from the serving units
    package = ".".join(path.relative_to(root).parts[:-1])
    unit = unit_of(".".join(path.relative_to(root).with_suffix("").parts)) or ""
    if unit not in ROOMS:
      found.append(f"{name}:1: {unit} has no place in the order")
      continue
    for line, module in imported_modules(tree, package):
      target = unit_of(module)
      if target is None:
        external = module.split(".")[0]
        light = external in RENDER_ROOTS or external in sys.stdlib_module_names
        if unit == "render" and not light:
          found.append(f"{name}:{line}: render imports {external}")
      # A bare name of the package itself, as its version, belongs to no unit.
      elif target in ROOMS and target not in (unit, *ROOMS[unit]):
        found.append(f"{name}:{line}: {unit} imports {target}")
  return found


def test_imports_point_one_way():
  assert violations(ROOT) == []


def test_the_rooms_have_an_order_without_circles():
  below: set[str] = set(BASE)
  for room, imports in ROOMS.items():
    assert set(imports) <= below | {room}, room
    below.add(room)


def test_there_are_at_most_fourteen_rooms_and_no_room_within_a_room():
  folders = {path.parent.relative_to(ROOT / "umr_jax") for path in ROOT.glob("umr_jax/**/*.py")}
  rooms = {folder.as_posix() for folder in folders} - {"."}
  assert rooms == set(ROOMS) - {*BASE, *PROGRAMS}
  assert len(rooms) <= 14


def plant(root: pathlib.Path, files: dict[str, str]) -> list[str]:
  for name, source in files.items():
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
  return violations(root)


@pytest.mark.parametrize(
  ("path", "source", "expected"),
  [
    ("umr_jax/render/mesh.py", "from umr_jax.models import encoder", "render imports models"),
    ("umr_jax/render/mesh.py", "\nimport umr_jax.losses.mask", "render imports losses"),
    ("umr_jax/render/mesh.py", "import flax.linen as nn", "render imports flax"),
    ("umr_jax/geometry/uv.py", "from ..em.loop import run", "geometry imports em"),
    ("umr_jax/geometry/uv.py", "from .. import train", "geometry imports train"),
    ("umr_jax/eval/report.py", "from umr_jax import parts", "eval imports parts"),
    (
      "umr_jax/predict/predictor.py",
      "def f():\n  from umr_jax.train.step import g",
      "predict imports train",
    ),
    ("umr_jax/predict/export.py", "def f():\n  from ..em import loop", "predict imports em"),
    ("umr_jax/data/cub.py", "import umr_jax.models.encoder", "data imports models"),
    ("umr_jax/data/cub.py", "from umr_jax.losses.mask import x", "data imports losses"),
    ("umr_jax/losses/mask.py", "from umr_jax.data.example import x", "losses imports data"),
    (
      "umr_jax/train/step.py",
      "from umr_jax.predict.predictor import Predictor",
      "train imports predict",
    ),
    ("umr_jax/em/loop.py", "from experiments.train import main", "em imports experiments"),
    (
      "umr_jax/types.py",
      "import importlib\ndef f(): importlib.import_module('umr_jax.em.loop')",
      "types imports em",
    ),
    ("umr_jax/train/step.py", "import jax\nstep = jax.pmap(print)", "names pmap"),
    ("experiments/train.py", "from jax import pmap as p", "names pmap"),
    ("umr_jax/em/e_step.py", "import jax\nf = getattr(jax, 'pmap')", "names pmap"),
    ("umr_jax/helpers.py", "x = 1", "helpers has no place in the order"),
  ],
)
def test_a_planted_violation_is_found(tmp_path, path, source, expected):
  found = plant(tmp_path, {path: source})
  assert len(found) == 1
  assert found[0].startswith(f"{path}:")
  assert expected in found[0]


def test_what_is_allowed_is_not_reported(tmp_path):
  files = {
    "umr_jax/__init__.py": "from umr_jax.predict.predictor import Predictor",
    "umr_jax/train/parallel.py": "import jax\nf = jax.pmap(print)",
    "umr_jax/train/checkpoint.py": "import umr_jax\nfrom umr_jax.types import host",
    "umr_jax/em/e_step.py": "from umr_jax import viz\nfrom umr_jax.train import parallel",
    "umr_jax/render/rasterize.py": "import jax, functools\nfrom . import distance",
    "umr_jax/eval/evaluate.py": "from umr_jax.data.batching import x\nfrom umr_jax import render",
    "experiments/train.py": "from umr_jax.em.run import run",
  }
  assert plant(tmp_path, files) == []


@pytest.mark.parametrize(
  ("module", "unwanted"),
  [
    (
      "umr_jax.render",
      ("flax", "optax", "orbax", "tensorflow_datasets", "trimesh", "scipy.spatial"),
    ),
    (
      "umr_jax.predict.predictor",
      ("umr_jax.train", "umr_jax.em", "umr_jax.parts", "umr_jax.em.run"),
    ),
    ("umr_jax.eval.workdir", ("umr_jax.train", "umr_jax.em", "umr_jax.parts", "umr_jax.init")),
    ("umr_jax.viz.gallery", ("umr_jax.train", "umr_jax.em", "umr_jax.parts", "umr_jax.init")),
    ("umr_jax", ("jax", "numpy")),
  ],
)
def test_importing_loads_no_more_than_it_must(module, unwanted):
  code = f"import sys, {module}; print([m for m in {unwanted!r} if m in sys.modules])"
  done = subprocess.run(
    [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
  )
  assert done.stdout.strip() == "[]"
