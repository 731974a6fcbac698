"""Hooks: what happens to documents and sessions is told to the application, in its process and by webhooks."""
