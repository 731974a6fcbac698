"""Session management for real-time collaborative editing."""
