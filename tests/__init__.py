"""Tests of everything; a package, so that no distribution that installs one of this name comes before it."""
