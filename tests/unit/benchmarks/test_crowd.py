"""Who watches whom in a crowd: what passes between nodes is timed, and nothing else."""

import pytest

from benchmarks.cluster import LARGE, PACED, QUICK, SATURATED
from benchmarks.crowd import Room, witnesses

ROOMS = (PACED, SATURATED, LARGE, *QUICK, Room(5, 2))


@pytest.mark.parametrize("nodes", [2, 3])
@pytest.mark.parametrize("room", ROOMS, ids=str)
def test_every_writer_is_watched_from_another_node(room: Room, nodes: int) -> None:
    spread = room.clients // room.writers

    watching = witnesses(room, nodes)

    assert all(witness % nodes != writer * spread % nodes for writer, witness in enumerate(watching))
    assert len(set(watching)) == room.writers
