"""Qcross: a second query for what is written in another language (Foroutan et al. 2023, arXiv:2310.15258)."""
