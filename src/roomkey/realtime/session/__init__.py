"""What a connection knows of its session: certainty, deadline, limits, and how it ends. Pure."""
