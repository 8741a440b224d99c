"""Generated datasets: one file each, named as the dataset."""
