"""Proofs on somebody's checkpoint: each file takes one claim, measures by how much it fails, and is allowed rounding.

`proof.py` is what all of them give, `proofs.py` calls them in turn.
"""
