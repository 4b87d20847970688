"""What the benchmarks share; every module beside this folder is a command."""
