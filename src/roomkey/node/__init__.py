"""
One node: everything that a process of Roomkey runs, wired together in one place.

``node`` wires it; ``security`` and ``audit`` are two parts of that; ``background`` is what goes on by itself.
"""

from roomkey.node.background import ALARM, BackgroundTasks
from roomkey.node.node import WELCOME, Node, cluster_of, welcome

__all__ = ["ALARM", "WELCOME", "BackgroundTasks", "Node", "cluster_of", "welcome"]
