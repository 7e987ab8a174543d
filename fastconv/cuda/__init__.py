"""Algorithms on NVIDIA GPUs; nothing here is imported before a CUDA array or device="cuda" asks for it."""
