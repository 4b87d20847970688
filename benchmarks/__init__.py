"""What we claim, as commands that print a table: `python -m benchmarks.NAME --help`. Not in the wheel."""
