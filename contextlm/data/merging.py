"""Several datasets become one: the shards of a run, in order, give the bytes that one run would have written.

The datasets are named by prefixes, folders or globs. Nothing is merged unless all of it belongs together: type of
the ids, tokenizer, EOD, and of a run all shards. The program is `tools/merge_datasets.py`.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from contextlm.data.indexed import IndexedDataset
from contextlm.data.indexed_writer import IndexedWriter
from contextlm.data.sidecar import Origin, Part, Sidecar, read_sidecar
from contextlm.errors import UserError


def find_datasets(words: Sequence[str]) -> list[str]:
    """The prefixes that `words` name: each a prefix, a folder of datasets or a glob, those two in numeric order.

    Raises:
        UserError: every word that names no dataset.
    """
    found: list[str] = []
    problems = []
    for word in words:
        prefix = word[:-4] if word.endswith((".bin", ".idx")) else word
        if Path(f"{prefix}.idx").is_file() or Path(f"{prefix}.bin").is_file():
            named = [prefix]
        else:
            pattern = f"{glob.escape(word)}/*.idx" if Path(word).is_dir() else f"{prefix}.idx"
            named = sorted((path.removesuffix(".idx") for path in glob.glob(pattern)), key=_numerically)
        found += named
        if not named:
            problems.append(f"--input {word}: there is no such dataset, or none in it (PREFIX.bin and PREFIX.idx)")
    problems += [f"--input {prefix}: named twice" for prefix in sorted({p for p in found if found.count(p) > 1})]
    if problems:
        raise UserError(*problems)
    return found


def merge_datasets(
    prefixes: Sequence[str], output_prefix: str, report: Callable[[str], None] = lambda _: None
) -> IndexedDataset:
    """Write the documents of all datasets, one dataset after the other, as one; the inputs stay.

    The sidecars are merged too. Shards of one run are taken in the order of their numbers.

    Args:
        report: called with each prefix before it is copied.

    Raises:
        UserError: everything about the datasets that does not fit together.
    """
    if str(Path(output_prefix).resolve()) in {str(Path(prefix).resolve()) for prefix in prefixes}:
        raise UserError(f"--output-prefix {output_prefix}: it is one of the datasets to merge; give another name")
    sidecars, dtype = _check(prefixes)
    order = list(range(len(prefixes)))
    parts = [sidecar.part for sidecar in sidecars if sidecar.part is not None]
    if parts and len(parts) == len(sidecars) and len({part.run for part in parts}) == 1:
        order.sort(key=lambda place: parts[place].shard)
    vocab_size = sidecars[0].vocab_size if sidecars else np.iinfo(dtype).max + 1
    with IndexedWriter(output_prefix, vocab_size, dtype) as writer:
        for place in order:
            report(prefixes[place])
            writer.add_dataset(IndexedDataset(prefixes[place]))
        if sidecars:
            writer.origin = _merged_origin([sidecars[place] for place in order])
    return IndexedDataset(output_prefix)


def _numerically(text: str) -> list[tuple[int, str]]:
    """Sort key by which shard 2 comes before shard 10."""
    return [(int(piece), "") if piece.isdigit() else (-1, piece) for piece in re.split(r"(\d+)", text)]


def _check(prefixes: Sequence[str]) -> tuple[list[Sidecar], np.dtype]:
    """Sidecars of all datasets, or none if no dataset has one; the type of the ids."""
    problems: list[str] = []
    sidecars: list[Sidecar | None] = []
    dtypes: list[np.dtype] = []
    for prefix in prefixes:
        try:
            dataset, sidecar = IndexedDataset(prefix), read_sidecar(prefix)
        except UserError as error:
            problems += error.problems
            continue
        if sidecar and not sidecar.describes(dataset):
            problems.append(f"{prefix}.json describes other .bin/.idx files than those beside it; make them again")
        dtypes.append(dataset.dtype)
        sidecars.append(sidecar)
    if problems:
        raise UserError(*problems)
    first, first_sidecar = prefixes[0], sidecars[0]
    for prefix, dtype, sidecar in zip(prefixes, dtypes, sidecars, strict=True):
        if dtype != dtypes[0]:
            problems.append(
                f"{prefix}: its ids are {dtype}, those of {first} are {dtypes[0]}; one vocabulary is needed"
            )
        problems += _differences(prefix, sidecar, first, first_sidecar)
    known = [sidecar for sidecar in sidecars if sidecar is not None]
    problems += _incomplete_runs(prefixes, known) if len(known) == len(prefixes) else []
    if problems:
        raise UserError(*problems)
    return known, dtypes[0]


def _differences(prefix: str, sidecar: Sidecar | None, first: str, other: Sidecar | None) -> list[str]:
    if sidecar is None and other is None:
        return []
    if sidecar is None or other is None:
        lacking, having = (prefix, first) if sidecar is None else (first, prefix)
        return [f"{lacking}: it has no .json, so its tokenizer cannot be compared with that of {having}; make it again"]
    facts = {
        "tokenizer": (_tokenizer_name(sidecar), _tokenizer_name(other)),
        "EOD id": (sidecar.eod, other.eod),
        "--append-eod": (sidecar.append_eod, other.append_eod),
    }
    return [
        f"{prefix}: made with {name} {ours}, but {first} with {theirs}; make one of them again"
        for name, (ours, theirs) in facts.items()
        if ours != theirs
    ]


def _tokenizer_name(sidecar: Sidecar) -> str:
    return f"{sidecar.tokenizer_type} {sidecar.tokenizer_fingerprint[:12]}"


def _incomplete_runs(prefixes: Sequence[str], sidecars: Sequence[Sidecar]) -> list[str]:
    """One sentence for each shard that is missing, or there twice."""
    runs: dict[tuple[str, int], dict[int, list[str]]] = {}
    for prefix, sidecar in zip(prefixes, sidecars, strict=True):
        if sidecar.part and sidecar.part.num_shards > 1:
            shards = runs.setdefault((sidecar.part.run, sidecar.part.num_shards), {})
            shards.setdefault(sidecar.part.shard, []).append(prefix)
    problems = []
    for (_, num_shards), shards in runs.items():
        example = next(iter(shards.values()))[0]
        missing = [str(shard) for shard in range(num_shards) if shard not in shards]
        if missing:
            problems.append(
                f"shard {', '.join(missing)} of {num_shards} is missing from the run of {example}: it has not been "
                "made, or was made from other inputs or with other options"
            )
        problems += [
            f"shard {shard} of {num_shards} is there {len(found)} times: {', '.join(found)}; name those of one key"
            for shard, found in shards.items()
            if len(found) > 1
        ]
    return problems


def _merged_origin(sidecars: Sequence[Sidecar]) -> Origin:
    first = sidecars[0]
    runs = {sidecar.part and sidecar.part.run for sidecar in sidecars}
    return Origin(
        tokenizer_type=first.tokenizer_type,
        tokenizer_fingerprint=first.tokenizer_fingerprint,
        vocab_size=first.vocab_size,
        eod=first.eod,
        text_bytes=sum(sidecar.text_bytes for sidecar in sidecars),
        append_eod=first.append_eod,
        rejects=sum(sidecar.rejects for sidecar in sidecars),
        sources=tuple(dict.fromkeys(source for sidecar in sidecars for source in sidecar.sources)),
        part=Part(first.part.run) if first.part and len(runs) == 1 and len(sidecars) == first.part.num_shards else None,
    )
