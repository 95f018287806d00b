"""The size and the signatures of functions, checked on the source of every file."""

import ast
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import pytest

ROOT = pathlib.Path(__file__).parent.parent
MOST_LINES, MOST_PARAMETERS, MOST_LAUNCHER_LINES = 60, 8, 60
# The rasterizer's public calls: each parameter is an option that their users set by name.
MANY_PARAMETERS = {
  ("umr_jax/render/rasterize.py", "soft_rasterize"),
  ("umr_jax/render/rasterize.py", "rasterize"),
  ("umr_jax/render/mesh.py", "render_mesh"),
}


class Function(NamedTuple):
  """A function of a file."""

  node: ast.FunctionDef | ast.AsyncFunctionDef
  public: bool  # neither its name nor its class begins with _, and no function holds it


def functions(node: ast.AST, public: bool = True) -> Iterator[Function]:
  """Every function of a file, wherever it stands."""
  for child in ast.iter_child_nodes(node):
    if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
      yield Function(child, public and not child.name.startswith("_"))
      yield from functions(child, public=False)
    elif isinstance(child, ast.ClassDef):
      yield from functions(child, public and not child.name.startswith("_"))
    else:
      yield from functions(child, public)


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef, source: list[str]) -> int:
  """The lines of a function's body that are neither docstring nor blank nor comment."""
  body = function.body[ast.get_docstring(function) is not None :]
  lines = {line for part in body for line in range(part.lineno, part.end_lineno + 1)}
  texts = (source[line - 1].strip() for line in lines)
  return sum(bool(text) and not text.startswith("#") for text in texts)


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.arg]:
  found = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
  return [parameter for parameter in found if parameter.arg not in ("self", "cls")]


def names_any(annotation: ast.expr | None) -> bool:
  nodes = ast.walk(annotation) if annotation is not None else ()
  return any(isinstance(node, ast.Name) and node.id == "Any" for node in nodes)


def violations(root: pathlib.Path) -> list[str]:
  """Everything in a checkout that breaks a rule of this file, as `path:name: what`."""
  found: list[str] = []
  for path in sorted([*root.glob("umr_jax/**/*.py"), *root.glob("experiments/**/*.py")]):
    file = path.relative_to(root).as_posix()
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    if path.parent == root / "experiments" and len(lines) > MOST_LAUNCHER_LINES:
      found.append(f"{file}: {len(lines)} lines of a launcher")
    for node, public in functions(ast.parse(text)):
      given, place = parameters(node), f"{file}:{node.name}"
      if (count := code_lines(node, lines)) > MOST_LINES:
        found.append(f"{place}: {count} lines of code")
      if len(given) > MOST_PARAMETERS and (file, node.name) not in MANY_PARAMETERS:
        found.append(f"{place}: {len(given)} parameters")
      if not public or not file.startswith("umr_jax/"):
        continue
      if any(names_any(hint) for hint in (*(p.annotation for p in given), node.returns)):
        found.append(f"{place}: Any in a public signature")
      if len(given) > 1 and "Args:" not in (ast.get_docstring(node) or ""):
        found.append(f"{place}: no Args section")
  return found


def test_functions_are_short_typed_and_documented():
  assert violations(ROOT) == []


LONG = "def f():\n" + "  x = 1\n" * (MOST_LINES + 1)
ARGS = '  """Does.\n\n  Args:\n    a: one.\n  """\n'
MANY = f"def f({', '.join(f'p{i}' for i in range(MOST_PARAMETERS + 1))}):\n{ARGS}"


@pytest.mark.parametrize(
  ("path", "source", "expected"),
  [
    ("umr_jax/em/a.py", LONG, "61 lines of code"),
    ("experiments/studies/a.py", LONG, "61 lines of code"),
    ("umr_jax/em/a.py", MANY, "9 parameters"),
    ("umr_jax/em/a.py", f"def f(a: dict[str, Any], b: int):\n{ARGS}", "Any in a public"),
    ("umr_jax/em/a.py", "class A:\n  def f(self) -> Any:\n    pass", "Any in a public"),
    ("umr_jax/em/a.py", "def f(a, *, b):\n  pass", "no Args section"),
    ("experiments/a.py", "x = 1\n" * (MOST_LAUNCHER_LINES + 1), "61 lines of a launcher"),
  ],
)
def test_a_planted_violation_is_found(tmp_path, path, source, expected):
  (tmp_path / path).parent.mkdir(parents=True)
  (tmp_path / path).write_text(source)
  found = violations(tmp_path)
  assert len(found) == 1
  assert found[0].startswith(path)
  assert expected in found[0]


def test_what_is_allowed_is_not_reported(tmp_path):
  private = "def _f(a: Any, b):\n  def g(c: Any, d): pass"
  long = "def f():\n" + '  """Says.\n' + "  more\n" * 70 + '  """\n' + "  # why\n\n" * 70 + "  pass"
  for name, source in {"private": private, "long": long, "one": "def f(a): pass"}.items():
    path = tmp_path / "umr_jax" / f"{name}.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(source)
  assert violations(tmp_path) == []
