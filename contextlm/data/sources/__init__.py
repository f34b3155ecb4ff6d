"""Where documents come from: files, globs, folders, stdin, datasets of the Hub; one order, in bounded memory.

    units = find_units(inputs)                    # units.py: what there is, every mistake at once
    units = share(units, num_shards, shard)       # sharing.py: one machine's part of it
    for batch in read_batches(units, keys):       # batches.py: raw bytes, cheap to make and to send to a worker
        for item in batch.documents():            # documents.py: parsing happens here
            ...                                   # a Document with its texts, or a Reject with its reason

Each format has a file: `json_lines.py`, `plain_text.py`, `parquet.py`, `hub.py`. Compressed files are unpacked by
`streams.py`. What cannot be used is never dropped in silence: it is a `Reject`, and what comes before and after it
is read. A file that the system cannot read (permissions, a failing disk) is a `UserError` instead.
"""
