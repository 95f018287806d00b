"""Measurements of the library itself: they are run from a clone and are no part of the wheel."""
