"""fastconv measured against other libraries: every result is verified, then timed. Run ``python -m bench --help``."""
