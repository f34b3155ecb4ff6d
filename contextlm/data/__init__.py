"""From text to batches: tokenizers, `.bin/.idx` datasets, sample order, loaders, preprocessing.

Writing data (neither torch nor megatron is imported): `preprocessing` -> `sources` -> `document_encoding` ->
`indexed_writer` -> `sidecar`.
Reading data (at training time): `datasets` -> `blend`, `indexed`, `dataset_checks` -> `samples`,
`blended_samples` -> `loader`.
"""
