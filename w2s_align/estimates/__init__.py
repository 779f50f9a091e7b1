"""What a plan says before anything runs: rows, tokens, memory, time and cost."""
