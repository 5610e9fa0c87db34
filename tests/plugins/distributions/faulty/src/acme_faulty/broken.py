"""A plugin that fails on import."""

import acme_of_another_planet  # noqa: F401

dataflow_api = "1.0"
