"""What goes over the wire, as values: the JSON protocol and the two Yjs protocols. Pure."""
