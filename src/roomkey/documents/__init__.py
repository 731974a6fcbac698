"""
Documents that merge: live replicas, awareness, saving, and versions.

Interfaces to documents import what they need from ``interface``.
"""
