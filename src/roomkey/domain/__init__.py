"""The rules of sessions: pure values and functions. No await, no clock, no input or output."""
