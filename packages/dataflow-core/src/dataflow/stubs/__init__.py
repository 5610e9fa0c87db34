"""Type stubs for an application: what mypy and pyright see of `dataflow` where its models are known.

Written into a folder that stands before the installed packages, they replace four modules by ones whose signatures
name the models, fields, options and node types of that application. Knows the registered models; never a database.
"""

from dataflow.stubs.files import FOLDER, compare, render, write

__all__ = ["FOLDER", "compare", "render", "write"]
