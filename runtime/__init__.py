"""What runs a compiled program: executables, variables, threads, artifacts. It needs NumPy only."""
