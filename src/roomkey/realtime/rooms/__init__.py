"""Who listens to what on this node: rooms, histories, presence, and the hub that hands frames out."""
