"""Inside the loop garbage is collected when asked for, and afterwards as before."""

from __future__ import annotations

import gc
import weakref

import pytest

from contextlm.training.garbage import collected_by_hand


class Cycle:
    """Refers to itself: only the collector frees it."""

    def __init__(self) -> None:
        self.me = self


@pytest.mark.parametrize("enabled", [True, False])
def test_collects_by_hand_only_and_restores(enabled: bool) -> None:
    was = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with pytest.raises(KeyError), collected_by_hand() as collect:
            assert not gc.isenabled()
            cycle = weakref.ref(Cycle())
            [[] for _ in range(10_000)]  # many times what sets the collector off
            assert cycle() is not None
            collect()
            assert cycle() is None
            raise KeyError
        assert gc.isenabled() == enabled and gc.get_freeze_count() == 0
    finally:
        (gc.enable if was else gc.disable)()
