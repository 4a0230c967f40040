"""Rows to train on: bundled sets and a person's own files, read by content, recognised, split, counted and shown.

Comes in: `DataSettings`.  Goes out: a `DataSet` of rows read from disk when they are asked for, the same as tokens,
and a `DataSummary` of what a tokenizer makes of them.  No torch.  This file is the room's door.
"""

from tuning.data.data_set import DataSet, open_data
from tuning.data.locate import bundled_folder, data_catalogue, is_uploaded, short_name
from tuning.data.summary import CONVERSATION, PAIRS, TEXT, DataSummary, read_first, summarize
from tuning.data.token_arrays import EncodedSet, encode_pairs, encode_set, row_sizes
from tuning.data.token_cache import encode_kept

__all__ = [
    "CONVERSATION",
    "PAIRS",
    "TEXT",
    "DataSet",
    "DataSummary",
    "EncodedSet",
    "bundled_folder",
    "data_catalogue",
    "encode_kept",
    "encode_pairs",
    "encode_set",
    "is_uploaded",
    "open_data",
    "read_first",
    "row_sizes",
    "short_name",
    "summarize",
]
