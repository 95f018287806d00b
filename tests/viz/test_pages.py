"""Pages: names from outside stay text, and a missing value is an error."""

import jinja2
import pytest

from umr_jax.viz.pages import render_page


def test_names_are_escaped_as_text_and_quoted_as_links():
  page = render_page("gallery.html", written=["<b>\"&'"], skipped=[("<i>.png", "bad & <worse>")])
  assert "<b>" not in page and "<i>" not in page
  assert 'src="%3Cb%3E%22%26%27.png"' in page
  assert "&lt;i&gt;.png: bad &amp; &lt;worse&gt;" in page


def test_a_missing_value_is_an_error():
  with pytest.raises(jinja2.UndefinedError, match="skipped"):
    render_page("gallery.html", written=[])
