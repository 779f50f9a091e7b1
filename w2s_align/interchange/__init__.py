"""Data of other tools: prompts and preference pairs in, pairs out in TRL's formats with a dataset card.

pairs = import_pairs("ultrafeedback.parquet", filters=Filters(max_length_gap=300, length_unit="chars"))
export_pairs(pairs.table, "my-pairs", audit=pairs.audit(), counts=pairs.counts)
"""

from w2s_align.interchange.pair_export import CardFacts, export_pairs
from w2s_align.interchange.pair_import import import_pairs
from w2s_align.interchange.prompt_sources import LoadedPrompts, load_prompts
from w2s_align.interchange.to_trl import to_sft, to_unpaired

__all__ = ["CardFacts", "LoadedPrompts", "export_pairs", "import_pairs", "load_prompts", "to_sft", "to_unpaired"]
