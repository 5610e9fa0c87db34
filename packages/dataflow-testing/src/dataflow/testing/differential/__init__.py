"""The differential test: random programs on several databases and on a plain-Python oracle, compared value by value.

A program is a list of operations that an integer seed determines: all node kinds, all filter and update operators on
all field types, wrong input, workflows with connections and transactions. After each step the results must be those
of the oracle, which carries every operation out on lists of dicts; after each error, and at the end, the contents of
all tables must. By hand::

    python -m dataflow.testing.differential --programs 100000 --jobs 2 --database URL --database URL

Nothing here knows a database but by its URL.
"""

from dataflow.testing.differential.campaign import Failure, Report, run_campaign, run_seeds
from dataflow.testing.differential.coverage import empty
from dataflow.testing.differential.models import declare
from dataflow.testing.differential.printing import Script, outcome
from dataflow.testing.differential.run import Found, Minimiser, replay, run_program
from dataflow.testing.differential.target import Boom, Target

__all__ = [
    "Boom",
    "Failure",
    "Found",
    "Minimiser",
    "Report",
    "Script",
    "Target",
    "declare",
    "empty",
    "outcome",
    "replay",
    "run_campaign",
    "run_program",
    "run_seeds",
]
