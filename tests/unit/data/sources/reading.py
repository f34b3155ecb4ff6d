"""What is read from inputs, in short."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import HealthCheck, settings

from contextlm.data.sources.batches import read_batches
from contextlm.data.sources.documents import Document, Reject
from contextlm.data.sources.unit import Unit
from contextlm.data.sources.units import find_units

# No test depends on how fast the machine is.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def items_of(units: Sequence[Unit], batch_bytes: int = 1 << 18, key: str = "text") -> list[Document | Reject]:
    """All documents and rejects; the bytes of the batches add up to those of the units."""
    batches = list(read_batches(units, [key], batch_bytes))
    if all(unit.size for unit in units):
        assert sum(batch.num_bytes for batch in batches) == sum(unit.size for unit in units)
    return [item for batch in batches for item in batch.documents()]


def texts_of(units: Sequence[Unit], batch_bytes: int = 1 << 18) -> list[str]:
    """The texts, where everything is a document."""
    items = items_of(units, batch_bytes)
    assert all(isinstance(item, Document) for item in items), items
    return ["".join(item.texts[0]) for item in items]


def read(*inputs: object, txt_documents: str = "file", batch_bytes: int = 1 << 18) -> tuple[list[str], list[Reject]]:
    """Texts and rejects of inputs."""
    items = items_of(find_units([str(given) for given in inputs], txt_documents), batch_bytes)
    texts = ["".join(item.texts[0]) for item in items if isinstance(item, Document)]
    return texts, [item for item in items if isinstance(item, Reject)]
