"""Reading images: WebDataset tars, folders of image files, Parquet with a column of bytes."""
