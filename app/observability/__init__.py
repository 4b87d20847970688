"""Seeing inside: metrics, logs, and the clock of a turn."""
