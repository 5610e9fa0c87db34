"""What DataFlow costs beside the bare driver, measured in one process and one run: ``./dev bench`` (see README.md)."""
