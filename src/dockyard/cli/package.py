"""Verbs between files and the store."""
