"""What is inside a Yjs document: updates, replicas, awareness, authorship. Knows no storage and no socket."""
