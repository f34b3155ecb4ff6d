"""What a machine has, what of it a run would use, and what is wrong with it: the work of tools/doctor.py.

Nothing here needs torch or megatron-core to be importable, except what looks at them, and says why it could not.
"""
