"""Colloquy: a voice backend that hears, answers and keeps what was said."""

__version__ = "0.1.0"
