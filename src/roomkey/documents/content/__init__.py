"""The content of a document as values: read, compared and changed."""
