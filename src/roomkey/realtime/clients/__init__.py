"""The clients of the three protocols, one object per socket."""
