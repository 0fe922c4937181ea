"""Files: networks (`.stf`) and traces, as HDF5 that is byte-deterministic and read without trust.

Reading follows no link out of the file, looks at every size before it allocates, and accepts
integer arrays and one JSON text only. Writing goes to a file beside the target, then renames.
"""
