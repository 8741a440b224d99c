"""Training: organisms to probe, made by recipes that anyone can run again."""
