"""Graphwright: a symbolic graph compiler for deep learning."""
