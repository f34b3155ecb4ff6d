"""Before any GPU-hour is spent: everything that would end the run later, found in seconds, told at once.

`host_checks` before the ranks meet, `rank_checks` right after.
"""
