"""One file per backend; the file is the registration."""
