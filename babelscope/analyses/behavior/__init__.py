"""What a model answers, as opposed to what it holds inside."""
