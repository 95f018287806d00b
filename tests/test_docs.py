"""README and docs/ name files, modules and settings that exist, and build without warnings.

The table of extensions in docs/method.md is that of the code; `python -m tests.test_docs` writes it
anew.
"""

import dataclasses
import importlib
import importlib.util
import pathlib
import re
import subprocess
import sys

import pytest

from umr_jax.config.extensions import EXTENSIONS
from umr_jax.config.preset_docs import DOCS
from umr_jax.config.presets import PRESETS
from umr_jax.config.settings import Config

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [
  ROOT / "README.md",
  ROOT / "experiments" / "colab.ipynb",
  *sorted((ROOT / "docs").glob("*.md")),
]
METHOD = ROOT / "docs" / "method.md"
GROUPS = {field.name: getattr(Config(), field.name) for field in dataclasses.fields(Config)}
SETTINGS = {f"{name}.{field.name}" for name in GROUPS for field in dataclasses.fields(GROUPS[name])}

_PATH = re.compile(r"(?<![\w./])((?:umr_jax|experiments|tests|docs)/[\w./-]*\w(?:\.\w+)?/?)")
_MODULE = re.compile(r"\b(umr_jax(?:\.\w+)+|experiments\.\w+)")
# A name in backticks that begins with a room of the package.
ROOMS = sorted(path.parent.name for path in (ROOT / "umr_jax").glob("*/__init__.py"))
_NAME = re.compile(rf"`((?:umr_jax\.)?(?:{'|'.join(ROOMS)})(?:\.\w+)+)`")
_LINK = re.compile(r"\]\(([^)#:]+\.\w+)(?:#[^)]*)?\)")
_SETTING = re.compile(rf"(?<![\w./])(?:--config\.)?({'|'.join(GROUPS)})\.([a-z]\w*)\b")
# What a page calls `data.csv`, or the attribute of an object, is not a setting.
_NO_SETTING = {"json", "npz", "npy", "png", "jpg", "md", "py", "html", "ckpt"}


@pytest.fixture(params=PAGES, ids=lambda page: page.name)
def page(request: pytest.FixtureRequest) -> pathlib.Path:
  return request.param


def resolves(dotted: str) -> bool:
  """Whether a dotted name is a module, or an attribute of one."""
  if dotted.startswith("experiments."):  # a program, whose flags are defined when it is imported
    return importlib.util.find_spec(dotted) is not None
  parts = dotted.split(".")
  for count in range(len(parts), 0, -1):
    try:
      value = importlib.import_module(".".join(parts[:count]))
    except ModuleNotFoundError as error:
      if error.name is None or not dotted.startswith(error.name):
        raise  # a module that is there and lacks a dependency
      continue
    for name in parts[count:]:
      if not hasattr(value, name):
        return False
      value = getattr(value, name)
    return True
  return False


def missing_paths(text: str) -> list[str]:
  """The paths in a text that are not in the repository."""
  # Built or written by a command: docs/_build, and what is under runs/.
  return [
    path
    for path in _PATH.findall(text)
    if not (ROOT / path).exists() and not path.startswith("docs/_build")
  ]


def unknown_settings(text: str) -> list[str]:
  """The settings in a text that the configuration does not have."""
  return [
    f"{group}.{name}"
    for group, name in _SETTING.findall(text)
    if name not in _NO_SETTING and f"{group}.{name}" not in SETTINGS
  ]


def unknown_names(text: str) -> list[str]:
  """The names in a module's text, such as `losses.mask.soft_iou`, that are nothing."""
  names = sorted({name.removeprefix("umr_jax.") for name in _NAME.findall(text)})
  return [name for name in names if name not in SETTINGS and not resolves(f"umr_jax.{name}")]


def test_paths_exist(page: pathlib.Path) -> None:
  assert missing_paths(page.read_text()) == []


def test_modules_exist(page: pathlib.Path) -> None:
  names = sorted(set(_MODULE.findall(page.read_text())))
  assert [name for name in names if not resolves(name)] == []


def test_links_exist(page: pathlib.Path) -> None:
  links = _LINK.findall(page.read_text())
  assert [link for link in links if not (page.parent / link).exists()] == []


def test_settings_exist(page: pathlib.Path) -> None:
  assert unknown_settings(page.read_text()) == []


def test_docstrings_name_what_exists() -> None:
  modules = [*(ROOT / "umr_jax").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")]
  unknown = {str(path.relative_to(ROOT)): unknown_names(path.read_text()) for path in modules}
  assert {path: names for path, names in unknown.items() if names} == {}


def test_what_does_not_exist_is_found() -> None:
  assert missing_paths("`umr_jax/em/loop.py` and `umr_jax/em/lop.py`") == ["umr_jax/em/lop.py"]
  assert unknown_settings("`--config.loss.mask=1`, `loss.musk`") == ["loss.musk"]
  assert not resolves("umr_jax.render.soft_silhuette")
  assert unknown_names("`losses.mask.soft_iou` `geometry.level` `losses.total`") == ["losses.total"]
  assert resolves("umr_jax.render.soft_silhouette")
  assert _LINK.findall("[a](docs/a.md) [b](https://b.c/d.html)") == ["docs/a.md"]


def extension_table() -> str:
  """The table of all extensions, in Markdown."""
  lines = ["| extension, files | presets | replaces | measured |", "|---|---|---|---|"]
  for name, extension in EXTENSIONS.items():
    what = ", ".join(f"`{word}`" for word in (name, *extension.files))
    users = ", ".join(f"`{user}`" for user, preset in PRESETS.items() if name in preset.extensions)
    lines.append(f"| {what} | {users} | {extension.replaces} | {extension.brought} |")
  return "\n".join(lines) + "\n"


def with_extension_table(page: str) -> str:
  """The method's page with the table of now between its two comments."""
  head, begun, rest = page.partition("writes it. -->\n")
  _, ended, tail = rest.partition("<!-- end of the table -->")
  assert begun and ended
  return f"{head}{begun}\n{extension_table()}\n{ended}{tail}"


def test_the_table_of_extensions_is_that_of_the_code() -> None:
  page = METHOD.read_text()
  assert page == with_extension_table(page), "python -m tests.test_docs writes it anew"


def test_an_extension_is_documented_with_files_that_exist() -> None:
  for name, extension in EXTENSIONS.items():
    assert missing_paths(" ".join(extension.files)) == [], name
    assert "|" not in extension.replaces + extension.brought, name


@pytest.mark.parametrize("preset", [name for name in PRESETS if PRESETS[name].extensions])
def test_what_to_expect_of_a_preset_is_what_was_measured(preset: str) -> None:
  """README's row, without its intervals, in the preset's own text; with them in BUILD_NOTES."""
  command = "no flag" if preset == "quickstart" else f"`--config={preset}`"
  row = next(x for x in (ROOT / "README.md").read_text().splitlines() if f": {command} (" in x)
  mask_iou, camera, solid_iou = (cell.strip() for cell in row.split("|")[2:5])
  notes = (ROOT / "BUILD_NOTES.md").read_text().replace("**", "")
  expected = DOCS[preset].split("Expected:")[1]
  for metric, cell in (("mask IoU", mask_iou), ("cameras", camera), ("3D IoU", solid_iou)):
    if cell != "no truth":
      assert f"{metric} {cell.split()[0]}" in expected
      assert cell.split(" (")[0].removesuffix(" degrees") in notes


def test_lengths() -> None:
  assert len((ROOT / "README.md").read_text().splitlines()) <= 100
  assert len((ROOT / "BUILD_NOTES.md").read_text().splitlines()) < 500


@pytest.mark.slow
def test_docs_build_without_warnings(tmp_path: pathlib.Path) -> None:
  pytest.importorskip("sphinx")
  command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html"]
  built = subprocess.run(
    [*command, "-d", str(tmp_path / "doctrees"), str(ROOT / "docs"), str(tmp_path / "html")],
    capture_output=True,
    text=True,
    check=False,
  )
  assert built.returncode == 0, built.stderr
  assert (tmp_path / "html" / "api" / "render.html").exists()


if __name__ == "__main__":
  METHOD.write_text(with_extension_table(METHOD.read_text()))
