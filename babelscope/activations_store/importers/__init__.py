"""Sources that a store can be imported from, one file each."""
