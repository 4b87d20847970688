"""What was said is kept: conversations in a database, recordings in an object store."""
