"""The session core: one state machine over events, whatever the wire."""
