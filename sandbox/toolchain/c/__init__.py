"""Modules in C: compiled by the host's compiler, linked into the guest by us."""
