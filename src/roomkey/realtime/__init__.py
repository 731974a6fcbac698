"""Rooms, presence and documents over one connection. Knows sessions only as values and events."""
