"""The record at the head of each file: progress, digests, the table of tensors."""
