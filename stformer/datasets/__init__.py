"""Data sets one by one; `stformer.data` is the front that others import."""
