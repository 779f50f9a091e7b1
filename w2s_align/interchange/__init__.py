"""Data of other tools: prompts and pairs in, pairs out, formats and licenses."""
