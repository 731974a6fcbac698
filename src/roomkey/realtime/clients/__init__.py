"""One socket each: the clients of the three protocols."""
