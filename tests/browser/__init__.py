"""Pages in a browser; a package, so that what its files share ends with the last of them, and not with the run."""
