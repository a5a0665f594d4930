"""Exports InternVL checkpoints with a Qwen2 language model to ONNX model packages.

The way of the data, one module a stage::

    hub -> config, layout -> checkpoint -> weights -> graph_vision, graph_projector, graph_decoder -> graph_file
        -> tokenizer, prompt -> manifest

``package.export_package`` runs it; ``synth`` makes random checkpoints; ``verify`` checks a package against NumPy.
"""

__version__ = "0.1.0"
