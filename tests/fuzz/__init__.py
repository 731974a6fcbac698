"""Fuzzing of every parser of what comes from outside: ``python -m tests.fuzz [--seconds N] [--target NAME]``."""
