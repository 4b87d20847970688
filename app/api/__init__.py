"""Doors: one file a protocol or resource family. A door translates; it decides nothing."""
