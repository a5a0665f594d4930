"""Checks a package: file hashes, then every graph on ONNX Runtime against a plain NumPy evaluation."""
