"""Every mend of megatron-core 0.16.1, one file each; nothing else in the project changes its behaviour.

`mends.apply` installs those that every run needs; `cpu_runtime.install` is the opt-in one for machines
without CUDA. Each file says what is wrong (file and line of version 0.16.1), the mend, and the test that
fails without it. The mends that edit source (`rewrite`) refuse a megatron-core they were not written for.
"""
