"""One module for each engine, run as a program in that engine's own virtual environment.

``python -m peerbench.adapters.NAME prepare TASK`` converts the checkpoint, ``… measure TASK`` prints the figures as one
JSON object.
"""
