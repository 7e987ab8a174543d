"""fastconv on a GPU: correctness of every algorithm, then its time beside cuDNN's. `python -m bench.gpu`."""
