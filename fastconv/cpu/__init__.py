"""The algorithms for processors, one module each; what two of them share begins with an underscore."""
