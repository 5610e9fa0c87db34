"""For all tests."""

import gc


def pytest_collection_finish() -> None:
    """Keep ten thousand collected tests out of the garbage collector's sight, which would look through all of them."""
    gc.collect()
    gc.freeze()
