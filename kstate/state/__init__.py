"""Operator state as something the system owns: the paper's primitives, one module each.

`checkpoint` makes an epoch's blocks and marker of one piece, `backup` writes and verifies them, `restore` brings a key
range back from them, `replay` says where its inputs start again. The bytes are those of `layout` and `values` (local
store), `blocks` and `markers` (backup log) and `lineage` (how far the local store is).
"""
