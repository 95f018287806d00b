"""Tests, folder for folder as in the packages; helpers are imported as `tests.tiny` etc."""
