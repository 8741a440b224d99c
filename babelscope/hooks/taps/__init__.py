"""One file per kind of site; the file is the registration."""
