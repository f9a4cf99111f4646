"""Reads images from WebDataset tars, folders of image files, and Parquet with a column of bytes."""
