"""Vintern and its peers on one checkpoint, in turn.

The driver (``program``) uses the standard library alone: it makes what is missing (``environments``, ``preparation``),
starts one process for each engine and round (``process``, ``ours``, ``adapters``), takes medians (``summary``) and
writes them down (``table``, ``plot``).
"""
