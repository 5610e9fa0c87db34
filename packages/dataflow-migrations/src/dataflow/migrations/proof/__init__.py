"""Proofs that are run by hand, and in small by the tests: what migrations promise holds for schemas nobody chose."""
