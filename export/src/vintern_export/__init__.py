"""Exports InternVL checkpoints with a Qwen2 language model to ONNX model packages.

The way of the data, one module a stage::

    hub -> config -> layout -> checkpoint -> weights -> {vision,projector,decoder}_graph -> graph_file -> manifest
                                        \\-> tokenizer, prompt ------------------------------------------/

``package.export_package`` runs it; ``synth`` makes random checkpoints; ``verify`` checks a package against NumPy.
"""

__version__ = "0.1.0"
