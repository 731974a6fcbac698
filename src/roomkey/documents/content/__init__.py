"""What a document says, as values: read, compared and changed."""
