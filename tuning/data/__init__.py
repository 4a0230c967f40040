"""Rows to train on: bundled sets and a person's own files, recognised by content, split, counted and shown.

`open_data` gives a `DataSet` of rows that are read from disk when they are asked for; `encode_set` makes tokens of
them, and `summarize` a `DataSummary` of what a tokenizer makes of them. No torch.
"""

from tuning.data.data_set import DataSet, open_data
from tuning.data.locate import data_catalogue, is_uploaded, short_name
from tuning.data.summary import CONVERSATION, PAIRS, TEXT, DataSummary, read_first, summarize, uncounted
from tuning.data.token_arrays import EncodedSet, encode_pairs, encode_set, row_sizes
from tuning.data.token_cache import encode_cached

__all__ = [
    "CONVERSATION",
    "PAIRS",
    "TEXT",
    "DataSet",
    "DataSummary",
    "EncodedSet",
    "data_catalogue",
    "encode_cached",
    "encode_pairs",
    "encode_set",
    "is_uploaded",
    "open_data",
    "read_first",
    "row_sizes",
    "short_name",
    "summarize",
    "uncounted",
]
