"""REST: translates between HTTP and the commands on sessions, and decides nothing."""
