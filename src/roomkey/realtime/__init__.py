"""Connections, rooms, and documents over sockets. Knows sessions only as values and events."""
