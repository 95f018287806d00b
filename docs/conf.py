"""How Sphinx builds the documentation: MyST pages, and the API from the docstrings.

sphinx-build -W -b html docs docs/_build
"""

import importlib.util
import itertools
import pathlib
import pkgutil
import re
import sys

from sphinx.application import Sphinx

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import umr_jax  # noqa: E402  the clone's, installed or not

project = "umr_jax"
author = "the authors of umr_jax"
copyright = "the authors of umr_jax, Apache-2.0"
release = version = umr_jax.__version__

extensions = [
  "myst_parser",
  "sphinx.ext.autodoc",
  "sphinx.ext.napoleon",
  "sphinx_autodoc_typehints",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"umr_jax {release}"

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3  # a page may link to another's headings

autodoc_default_options = {
  "members": True,
  "member-order": "bysource",
  # What flax and dataclasses generate has no docstring of this project.
  "exclude-members": "parent, name, scope, replace, setup",
}
autodoc_typehints = "none"  # sphinx_autodoc_typehints writes them, beside the arguments
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# Names of fields such as x and y are targets in several modules; the formatter below is a function,
# which Sphinx does not keep between builds.
suppress_warnings = ["ref.python", "sphinx_autodoc_typehints.forward_reference", "config.cache"]


def typehints_formatter(annotation: object, config: object) -> str | None:
  """An array's type with its shape, as the code has it; None for the usual form."""
  del config
  if not isinstance(getattr(annotation, "dim_str", None), str):
    return None
  array = getattr(annotation, "array_type", object)
  kind = getattr(annotation, "dtype", object)
  shape = getattr(annotation, "dim_str", "")
  return f'``{kind.__name__}[{getattr(array, "__name__", "Array")}, "{shape}"]``'


# The dimension letters and frames stand in the package's own docstring.
PACKAGES = (
  "config",
  "geometry",
  "render",
  "models",
  "losses",
  "train",
  "parts",
  "init",
  "em",
  "data",
  "eval",
  "predict",
  "viz",
)


def modules_of(package: str) -> list[str]:
  """The dotted names of a package below umr_jax: its own first, then its modules'."""
  found = importlib.util.find_spec(f"umr_jax.{package}")
  if found is None or found.submodule_search_locations is None:
    raise FileNotFoundError(f"umr_jax.{package} is not a package")
  names = sorted(module.name for module in pkgutil.iter_modules(found.submodule_search_locations))
  return [f"umr_jax.{package}", *(f"umr_jax.{package}.{name}" for name in names)]


def section(module: str, *, members: bool) -> str:
  """The entry of a module; a package's public names are documented where they are defined."""
  option = "" if members else "   :no-members:\n"
  return f"{module}\n{'-' * len(module)}\n\n.. automodule:: {module}\n{option}"


def write_api(app: Sphinx) -> None:
  """Writes a page for each package and one that lists them.

  Raises:
    ValueError: if `PACKAGES` lacks a package, so that no module can be forgotten.
  """
  folder = pathlib.Path(app.srcdir) / "api"
  folder.mkdir(exist_ok=True)
  found = list(pkgutil.iter_modules(umr_jax.__path__))
  if missing := {module.name for module in found if module.ispkg} - set(PACKAGES):
    raise ValueError(f"PACKAGES lacks {', '.join(sorted(missing))}")
  base = ["umr_jax", *(f"umr_jax.{module.name}" for module in found if not module.ispkg)]
  pages = {"base": base, **{package: modules_of(package) for package in PACKAGES}}
  for stale in set(folder.glob("*.rst")) - {folder / f"{name}.rst" for name in pages}:
    stale.unlink()
  for page, modules in pages.items():
    title = page if page != "base" else "umr_jax"
    parts = [f"{title}\n{'=' * len(title)}\n"]
    parts += [
      section(name, members=name != f"umr_jax.{page}" and name != "umr_jax") for name in modules
    ]
    (folder / f"{page}.rst").write_text("\n".join(parts))
  lines = ["API", "===", "", "From the docstrings, one page a package, in import order.", ""]
  lines += [".. toctree::", "   :maxdepth: 1", "", *(f"   {page}" for page in pages), ""]
  (folder / "index.rst").write_text("\n".join(lines))


_MARKUP = re.compile(r"`+([^`]+)`+|([*|])|(?<=\w)(_)(?=\W|$)")
_SECTION = re.compile(r"(Args|Returns|Raises|Yields|Attributes|Example|Examples|Note):$")


def escaped(match: re.Match[str]) -> str:
  """A name as code; any other markup as the character that it is."""
  code, symbol, underscore = match.groups()
  if not code:
    return f"\\{symbol or underscore}"
  # reST ends code at a boundary of words: in a plural that boundary is an escaped space.
  plural = match.string[match.end() : match.end() + 1].isalnum()
  return f"``{code}``" + ("\\ " if plural else "")


def as_literal(paragraph: list[str]) -> list[str]:
  """A paragraph of a docstring, of which indented lines keep their layout."""
  prose = list(itertools.takewhile(lambda line: not line.startswith(" "), paragraph))
  block = paragraph[len(prose) :]
  text = _MARKUP.sub(escaped, "\n".join(prose)).splitlines()
  return [*text, "", "::", "", *(f"  {line}" for line in block), ""] if block else text


def as_plain_text(
  app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
  """Docstrings are prose: names in backticks are code, indented lines keep their layout.

  Runs before napoleon, which reads the sections.
  """
  del app, what, name, obj, options
  out: list[str] = []
  in_section = False
  for has_text, group in itertools.groupby(lines, key=lambda line: bool(line.strip())):
    paragraph = list(group)
    if not has_text:
      out += paragraph
      continue
    if not paragraph[0].startswith(" "):
      in_section = bool(_SECTION.match(paragraph[0]))
    if in_section:
      out += _MARKUP.sub(escaped, "\n".join(paragraph)).splitlines()
    else:
      out += as_literal(paragraph)
  lines[:] = out


def setup(app: Sphinx) -> None:
  """Registers the generated pages and the docstrings' reader."""
  app.connect("builder-inited", write_api)
  app.connect("autodoc-process-docstring", as_plain_text, priority=100)
