"""HTML pages from the templates of this package. They work from a file, without a network."""

import jinja2

_TEMPLATES = jinja2.Environment(
  loader=jinja2.PackageLoader("umr_jax.viz"),
  autoescape=True,
  undefined=jinja2.StrictUndefined,
  trim_blocks=True,
  lstrip_blocks=True,
  keep_trailing_newline=True,
)


def render_page(template: str, **values: object) -> str:
  """A page's HTML.

  Args:
    template: a file name in templates/.
    **values: what the template names. Strings are escaped.

  Raises:
    jinja2.UndefinedError: for a name in the template that is missing from `values`.
  """
  return _TEMPLATES.get_template(template).render(values)
