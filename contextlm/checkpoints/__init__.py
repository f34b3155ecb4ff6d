"""Checkpoints: one folder per saved iteration, which any layout continues.

`saving` and `loading` over `checkpoint_folder` (files, names, the tracker) and `sharded_state` (tensors);
`compatibility` and `continuation` compare a checkpoint with the run that is to continue it.
"""
