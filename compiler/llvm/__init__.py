"""LLVM IR, as text, from scheduled kernels and programs."""
