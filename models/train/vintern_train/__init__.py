"""Trains the small Vintern of models/vintern-tiny from scratch."""
