"""The audit log: what is recorded in it can be checked by outsiders who trust nobody here."""
