"""Bytes: frames, close codes, lib0. Knows nothing of sessions, rooms or documents."""
