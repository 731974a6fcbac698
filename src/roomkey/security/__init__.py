"""Whom and what to believe: tokens, credentials, limits. Almost all of it pure."""
