# Names that the dead-code check (vulture) finds used nowhere in tuning/, each group with who uses them.
# ruff: noqa: B018, F821, E402

# members of the JSON that the page and other programs read
_.free_bytes
_.cut_rows
_.dropped_rows
_.low_bytes
_.device_lacks
_.saved_bytes
_.update_saved_bytes
_.curves
_.all_rows
_.reaches
_.created
_.eval_loss
_.best_eval
_.phase
_.color
_.band_words
_.cut_answers
_.lost_answers
_.trained_share
_.role_names
_.updates_per_epoch
_.looked_at
_.duplicates
_.in_both
_.bar
_.palette
_.axes
_.network
_.outlook
_.architecture
_.truth
_.prediction
_.data_name
Answers
LiveAnswer

# what a library calls, asks for or reads by name: pydantic, torch, transformers, bitsandbytes, uvicorn, jinja, io
_.model_config
_.readable
_.seekable
_.writable
_.should_exit
_._close_all
_._get_train_sampler
_._should_skip_dynamo
_._is_hf_initialized
_.is_loaded_in_4bit
_.support_avx512bf16_for_cpu
_._surrounded
_.encode_special_tokens
closure
inplace
dropout_p

# part of a cache's key
file_versions

# contracts that tests hold a method, a store and an executor to
_.merge_tolerance
_.all_columns
_.series_after
InlineExecutor

# makers' scripts in assets/make/
shipped_reports

# keys of answers that the page reads
chances
chance
moment
go_on
recovered_from
