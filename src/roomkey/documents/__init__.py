"""Documents that merge: live replicas, awareness, saving, and versions."""
