"""Named families of models: their shapes and chat templates, for planning and rehearsing without a download.

    from w2s_align.families import find_shape, make_stand_in
    find_shape("Qwen/Qwen2.5-3B-Instruct").parameters      # 3085938688, offline
    make_stand_in("tiny", like="Qwen/Qwen2.5-3B-Instruct")   # a model of the same architecture with 0.1 M weights

Light to import: torch and transformers are loaded inside ``make_stand_in``.
"""

from w2s_align.families.chat_templates import Family, family_of
from w2s_align.families.own_template import own_family
from w2s_align.families.shapes import Shape, find_shape, in_cache, shipped_shapes
from w2s_align.families.stand_in import StandIn, make_stand_in

__all__ = [
    "Family",
    "Shape",
    "StandIn",
    "family_of",
    "find_shape",
    "in_cache",
    "make_stand_in",
    "own_family",
    "shipped_shapes",
]
