"""Documents that merge: live replicas, who shows what in them, how they are saved, and what they were before."""
