"""Random programs over all subsets of features, against a plain-Python oracle and against canaries of another tenant.

`python -m dataflow.enterprise.proof --help`. Works for `dataflow.enterprise`'s own tests, and for doubt.
"""
